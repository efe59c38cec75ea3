//! What a model's weights are called, how they are stored, and how model code gets hold of them.
//!
//! A model's [`Manifest`] is written from its configuration, by the code that uses the weights: it
//! serves to check a checkpoint, to plan without one, and to say what is missing. A *block* is the
//! unit of placement. Model code asks [`Weights::block`] and does not know whether the answer has
//! been in place all along or has just been brought.

use std::collections::BTreeMap;
use std::ops::Range;
use vidfit_tensor::{Activation, Context, Error, Linear, Shape, Tensor};

/// Beyond any width of a configuration that is meant seriously.
pub const LARGEST_SIZE: usize = 1 << 16;
/// Beyond any depth: a manifest is not made from a hostile configuration.
pub const MOST_LAYERS: usize = 512;
/// Channels that the devices' convolutions and norms take.
pub const MOST_CHANNELS: usize = 4096;
/// Width of a head that the devices' attention takes.
pub const MOST_HEAD_DIM: usize = 256;

/// How a stored weight becomes the tensor that operations read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is stored; only the shape may be written otherwise.
    AsStored,
    /// A convolution, stored `[out, in, taps…]`, becomes `[taps, in, out]`.
    TapsFirst,
    /// Read row by row on the host, never as a whole on the device.
    HostRows,
}

/// One weight of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightSpec {
    /// The whole key in the checkpoint.
    pub key: String,
    /// Its shape there.
    pub stored: Vec<usize>,
    /// What becomes of it.
    pub form: Form,
    /// The shape that operations see.
    pub shape: Shape,
    /// Whether the weight stays f32 in f16 runs, as the reference keeps it.
    pub keep_f32: bool,
}

/// Weights that come and go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockSpec {
    /// What model code asks for.
    pub name: String,
    /// What the keys within the block are relative to, with the final dot; empty for none.
    pub prefix: String,
    /// The block's weights.
    pub weights: Vec<WeightSpec>,
}

/// All weights of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The blocks, in the order of their first use.
    pub blocks: Vec<BlockSpec>,
}

impl Manifest {
    /// Every weight.
    pub fn weights(&self) -> impl Iterator<Item = &WeightSpec> {
        self.blocks.iter().flat_map(|block| &block.weights)
    }

    /// The number of parameters.
    pub fn parameters(&self) -> u64 {
        self.weights().map(|weight| weight.stored.iter().product::<usize>() as u64).sum()
    }

    /// The block called `name`.
    pub fn block(&self, name: &str) -> Option<&BlockSpec> {
        self.blocks.iter().find(|block| block.name == name)
    }

    pub(crate) fn add(&mut self, name: &str, prefix: &str) -> &mut BlockSpec {
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}.") };
        self.blocks.push(BlockSpec { name: name.to_owned(), prefix, weights: Vec::new() });
        self.blocks.last_mut().expect("just pushed")
    }
}

impl BlockSpec {
    pub(crate) fn weight(&mut self, key: &str, stored: &[usize]) -> &mut WeightSpec {
        self.weights.push(WeightSpec {
            key: format!("{}{key}", self.prefix),
            stored: stored.to_vec(),
            form: Form::AsStored,
            shape: Shape::from(stored),
            keep_f32: false,
        });
        self.weights.last_mut().expect("just pushed")
    }

    /// `key.weight` `[outputs, inputs]` and `key.bias` `[outputs]`.
    pub(crate) fn linear(&mut self, key: &str, outputs: usize, inputs: usize) -> &mut Self {
        self.weight(&format!("{key}.weight"), &[outputs, inputs]);
        self.weight(&format!("{key}.bias"), &[outputs]);
        self
    }

    /// `key.weight` and `key.bias`, both `[width]`.
    pub(crate) fn norm(&mut self, key: &str, width: usize) -> &mut Self {
        self.weight(&format!("{key}.weight"), &[width]);
        self.weight(&format!("{key}.bias"), &[width]);
        self
    }

    /// A convolution with bias and kernel `taps`. One of a single tap is used as a matrix.
    pub(crate) fn conv(
        &mut self,
        key: &str,
        outputs: usize,
        inputs: usize,
        taps: &[usize],
    ) -> &mut Self {
        let count: usize = taps.iter().product();
        let name = format!("{key}.weight");
        self.weights.push(WeightSpec {
            key: format!("{}{name}", self.prefix),
            stored: [&[outputs, inputs], taps].concat(),
            form: if count == 1 { Form::AsStored } else { Form::TapsFirst },
            shape: match count {
                1 => Shape::from([outputs, inputs]),
                _ => Shape::from([count, inputs, outputs]),
            },
            keep_f32: false,
        });
        self.weight(&format!("{key}.bias"), &[outputs]);
        self
    }
}

/// Brings weights to model code.
pub trait Weights {
    /// The weights of a block, ready for operations, until the next block is asked for: it may
    /// come to lie in the same memory. Blocks are asked for in an order that the configuration
    /// names beforehand.
    ///
    /// # Errors
    /// [`Error::Model`] if they cannot be read, [`Error::Deviation`] if their memory is not
    /// where the plan has it.
    fn block(&self, name: &str) -> Result<Block, Error>;

    /// Rows of a [`Form::HostRows`] matrix or of any other two-dimensional weight, widened to f32,
    /// one after another. Zeros where there are no weights.
    ///
    /// # Errors
    /// [`Error::Model`] if they cannot be read.
    fn rows(&self, key: &str, rows: &[usize]) -> Result<Vec<f32>, Error>;
}

/// The weights of one block, by their keys within it.
#[derive(Clone, Default)]
pub struct Block {
    tensors: BTreeMap<String, Tensor>,
}

impl Block {
    /// A block of these weights, named within the block.
    pub fn new(tensors: BTreeMap<String, Tensor>) -> Block {
        Block { tensors }
    }

    /// The weight called `key` within the block.
    ///
    /// # Panics
    /// If the model's manifest has no such weight: a bug in the model's code.
    pub fn get(&self, key: &str) -> &Tensor {
        self.find(key).unwrap_or_else(|| panic!("the manifest has no weight {key}"))
    }

    /// The weight called `key`, where the configuration has one.
    pub fn find(&self, key: &str) -> Option<&Tensor> {
        self.tensors.get(key)
    }

    /// `dst = activation(x · weightᵀ + bias)` with the layer `key`; the bias is optional.
    pub(crate) fn linear(
        &self,
        cx: &Context<'_>,
        key: &str,
        x: &Tensor,
        activation: Activation,
        dst: &mut Tensor,
    ) {
        let weight = self.get(&format!("{key}.weight"));
        let bias = self.find(&format!("{key}.bias"));
        cx.device.linear(Linear { x, weight, bias, activation }, dst);
    }

    /// As [`Block::linear`], but only the `outputs` in this range.
    pub(crate) fn linear_part(
        &self,
        cx: &Context<'_>,
        key: &str,
        outputs: Range<usize>,
        x: &Tensor,
        activation: Activation,
        dst: &mut Tensor,
    ) {
        let weight = &self.get(&format!("{key}.weight")).slice(outputs.clone());
        let bias = self.find(&format!("{key}.bias")).map(|bias| bias.slice(outputs));
        cx.device.linear(Linear { x, weight, bias: bias.as_ref(), activation }, dst);
    }
}
