//! What a run's steps share: modulations, projected text, positions.
//!
//! All modulations of all steps are computed once, into tables that wait in host memory (0.16 GB
//! for 50 steps of the 5B models, where the weights that they come from have 1.6 GB). A step brings
//! its rows.

use super::config::{TransformerConfig, modulation_name};
use crate::positions::{self, Grid, Sincos};
use crate::weights::{Block, Weights};
use std::sync::Arc;
use vidfit_tensor::{Activation, Context, DType, Error, HostBuffer, HostSource, Rope, Tensor};

/// The value that 1.5-5B-I2V is given for `ofs`, always.
const OFS: f64 = 2.0;

/// Shift, scale and gate of one stream, `[D]` each.
pub(super) struct StreamModulation {
    pub shift: Tensor,
    pub scale: Tensor,
    pub gate: Tensor,
}

/// The modulation of one norm.
pub(super) struct Modulation {
    pub video: StreamModulation,
    pub text: StreamModulation,
}

/// The modulation of one block in one step.
pub(super) struct BlockModulation {
    pub attention: Modulation,
    pub feed_forward: Modulation,
}

/// Everything that is computed once for all steps of a run.
pub struct Conditioning {
    /// The run's type.
    pub(super) dtype: DType,
    /// The patches.
    pub(super) grid: Grid,
    /// Projected text of each half, `[tokens, D]`.
    pub(super) text: Vec<Tensor>,
    /// Added positions: `[video tokens, D]`, or with the text rows in front.
    pub(super) positions: Option<Tensor>,
    /// Cosines and sines, `[video tokens, head_dim / 2]`.
    rope: Option<(Tensor, Tensor)>,
    /// The modulation tables of each block's two norms, `[steps, 6·D]`, and of the tail's,
    /// `[steps, 2·D]`.
    tables: Vec<Arc<HostBuffer>>,
    steps: usize,
    /// D.
    width: usize,
}

/// The modulations of one step.
pub(super) struct StepModulations {
    /// Six rows for each norm of a block: shift, scale and gate for video, then for text; then
    /// shift and scale of the tail. `[12 · blocks + 2, D]`.
    rows: Tensor,
}

/// The rows of one step, taken from all tables.
struct StepRows {
    tables: Vec<Arc<HostBuffer>>,
    steps: u64,
    step: u64,
}

impl HostSource for StepRows {
    fn len(&self) -> u64 {
        self.tables.iter().map(|table| table.len() / self.steps).sum()
    }

    fn read(&self, first: u64, piece: &mut [u8]) -> Result<(), String> {
        let end = first + piece.len() as u64;
        let mut row_begins = 0;
        for table in &self.tables {
            let row = table.len() / self.steps;
            let (from, to) = (first.max(row_begins), end.min(row_begins + row));
            if from < to {
                let out = &mut piece[(from - first) as usize..(to - first) as usize];
                table.read(self.step * row + from - row_begins, out)?;
            }
            row_begins += row;
        }
        Ok(())
    }
}

impl Conditioning {
    /// Computes the modulations of all `timesteps`, projects the `prompts` (`[tokens, text_dim]`
    /// each; one for each half of guidance), and lays out positions.
    ///
    /// # Errors
    /// As [`Weights::block`] and [`vidfit_tensor::Arena::alloc`].
    pub fn prepare(
        cx: &Context<'_>,
        weights: &dyn Weights,
        config: &TransformerConfig,
        dtype: DType,
        grid: Grid,
        timesteps: &[i64],
        prompts: &[&Tensor],
    ) -> Result<Conditioning, Error> {
        config.check_grid(grid).map_err(Error::model)?;
        let time = time_embedding(cx, weights, config, dtype, timesteps)?;
        let table = |w: &Block, key: &str, rows: usize| -> Result<Arc<HostBuffer>, Error> {
            let shape = [timesteps.len(), rows * config.inner_dim()];
            let mut table = cx.alloc("modulation table", dtype, shape)?;
            w.linear(cx, key, &time, Activation::None, &mut table);
            let kept = cx.arena.host_buffer("modulation table", table.bytes())?;
            cx.copy_out(&table, &kept)?;
            Ok(Arc::new(kept))
        };
        let mut tables = Vec::with_capacity(2 * config.num_layers + 1);
        for layer in 0..config.num_layers {
            let w = weights.block(&modulation_name(layer))?;
            tables.push(table(&w, "norm1.linear", 6)?);
            tables.push(table(&w, "norm2.linear", 6)?);
        }
        let w = weights.block("tail.modulation")?;
        tables.push(table(&w, "norm_out.linear", 2)?);
        drop(w);
        drop(time);

        let w = weights.block("text_proj")?;
        let project = |prompt: &&Tensor| {
            let shape = [prompt.rows(), config.inner_dim()];
            let mut projected = cx.alloc("projected text", dtype, shape)?;
            w.linear(cx, "text_proj", prompt, Activation::None, &mut projected);
            Ok(projected)
        };
        let text = prompts.iter().map(project).collect::<Result<_, Error>>()?;
        drop(w);

        let positions = added_positions(cx, weights, config, dtype, grid)?;
        let rope = match config.use_rotary_positional_embeddings {
            true => Some(rope(cx, config, grid)?),
            false => None,
        };
        let (steps, width) = (timesteps.len(), config.inner_dim());
        Ok(Conditioning { dtype, grid, text, positions, rope, tables, steps, width })
    }

    /// Rows of text in front of the video.
    pub(super) fn text_rows(&self) -> usize {
        self.text[0].rows()
    }

    pub(super) fn rope(&self) -> Option<Rope<'_>> {
        let first_row = self.text_rows();
        self.rope.as_ref().map(|(cos, sin)| Rope { cos, sin, first_row })
    }

    /// Brings the modulations of step number `step`.
    pub(super) fn modulations(
        &self,
        cx: &Context<'_>,
        step: usize,
    ) -> Result<StepModulations, Error> {
        let rows = 12 * (self.tables.len() / 2) + 2;
        let rows = cx.alloc("modulations of a step", self.dtype, [rows, self.width])?;
        let (steps, step) = (self.steps as u64, step as u64);
        let source = StepRows { tables: self.tables.clone(), steps, step };
        cx.copy_in(&(Arc::new(source) as Arc<dyn HostSource>), &rows)?;
        Ok(StepModulations { rows })
    }
}

impl StepModulations {
    /// The modulation of a block.
    pub fn block(&self, layer: usize) -> BlockModulation {
        let norm = |first: usize| {
            let stream = |first: usize| StreamModulation {
                shift: self.rows.at(first),
                scale: self.rows.at(first + 1),
                gate: self.rows.at(first + 2),
            };
            Modulation { video: stream(first), text: stream(first + 3) }
        };
        BlockModulation { attention: norm(12 * layer), feed_forward: norm(12 * layer + 6) }
    }

    /// Shift and scale of the last norm.
    pub fn tail(&self) -> (Tensor, Tensor) {
        let first = self.rows.rows() - 2;
        (self.rows.at(first), self.rows.at(first + 1))
    }
}

/// SiLU of the time embedding of each step, `[steps, time_embed_dim]`: what every modulation
/// reads.
fn time_embedding(
    cx: &Context<'_>,
    weights: &dyn Weights,
    config: &TransformerConfig,
    dtype: DType,
    timesteps: &[i64],
) -> Result<Tensor, Error> {
    let w = weights.block("time_embedding")?;
    let perceptron = |key: &str, inputs: &[f64], sinusoid: usize, width: usize| {
        let rows = inputs.len();
        let values =
            || inputs.iter().flat_map(|&t| positions::timestep_embedding(t, sinusoid)).collect();
        let x = cx.upload("sinusoid", dtype, [rows, sinusoid], values)?;
        let mut inner = cx.alloc("time embedding inner", dtype, [rows, width])?;
        w.linear(cx, &format!("{key}.linear_1"), &x, Activation::Silu, &mut inner);
        drop(x);
        let mut out = cx.alloc("time embedding", dtype, [rows, width])?;
        w.linear(cx, &format!("{key}.linear_2"), &inner, Activation::None, &mut out);
        Ok::<Tensor, Error>(out)
    };
    let times: Vec<f64> = timesteps.iter().map(|&t| t as f64).collect();
    let width = config.time_embed_dim;
    let mut embedding = perceptron("time_embedding", &times, config.inner_dim(), width)?;
    if let Some(ofs_width) = config.ofs_embed_dim {
        let ofs = perceptron("ofs_embedding", &[OFS], ofs_width, ofs_width)?;
        for step in 0..timesteps.len() {
            cx.device.add(&ofs, &mut embedding.slice(step..step + 1));
        }
    }
    let plain = embedding.clone();
    cx.device.silu(&plain, &mut embedding);
    Ok(embedding)
}

/// Positions that are added: learned ones where they fit, sincos ones otherwise, as the
/// reference decides.
fn added_positions(
    cx: &Context<'_>,
    weights: &dyn Weights,
    config: &TransformerConfig,
    dtype: DType,
    grid: Grid,
) -> Result<Option<Tensor>, Error> {
    if config.use_learned_positional_embeddings {
        let rows = config.max_text_seq_length + grid.tokens();
        if config.has_learned_positions(grid) {
            let w = weights.block("positions")?;
            return Ok(Some(w.get("pos_embedding").reshape([rows, config.inner_dim()])));
        }
    } else if config.use_rotary_positional_embeddings {
        return Ok(None);
    }
    let (space, time) = (config.spatial_interpolation_scale, config.temporal_interpolation_scale);
    let table = Sincos::new(grid, config.inner_dim(), space, time).map_err(Error::model)?;
    let shape = [grid.tokens(), config.inner_dim()];
    cx.upload("sincos positions", dtype, shape, || table.table()).map(Some)
}

/// Rotary tables stay f32 in every mode, as in the reference.
fn rope(
    cx: &Context<'_>,
    config: &TransformerConfig,
    grid: Grid,
) -> Result<(Tensor, Tensor), Error> {
    let shape = [grid.tokens(), config.attention_head_dim / 2];
    let table = match cx.arena.is_recording() {
        true => None,
        false => Some(config.rope(grid).map_err(Error::model)?),
    };
    let (cos, sin) = table.map(|table| (table.cos, table.sin)).unwrap_or_default();
    let cos = cx.upload("rope cosines", DType::F32, shape, || cos)?;
    let sin = cx.upload("rope sines", DType::F32, shape, || sin)?;
    Ok((cos, sin))
}
