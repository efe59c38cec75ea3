//! The operations a device offers: coarse, fused, into memory that the caller names.
//!
//! Conventions, for every operation:
//! - Tensors are dense and row major. A *frame* is one picture of a video, channels last:
//!   `[height, width, channels]`. A *padded* frame has a border of one zero pixel on each side:
//!   `[height + 2, width + 2, channels]`; that is what convolutions read.
//! - Arithmetic inside an operation is f32; the result is rounded once, on store, to the type of
//!   the destination. Every operand may have its own type.
//! - Sizes that affect rounding (tiles, partitions, the order of sums) are constants of the
//!   device: rows are independent of their number, and neither threads nor placement change bits.
//! - A destination overlaps no operand. Operations on each element by itself, and those that say so,
//!   may also write exactly upon an operand of the same type; never upon a part of it.
//! - Operations run in program order on the computing queue, perhaps later than the call returns.
//!   What goes wrong is reported by [`Device::finish`].
//! - Copies that are begun run on queues of their own, see [`Fence`]. The tensor that one
//!   reads or writes must stay alive, and must not be touched otherwise, until the computing queue
//!   has waited for it.
//! - Shapes are checked by the caller's checkpoint and plan; a mismatch here is a bug and panics.

use crate::{Copied, Error, Fence, HostBuffer, HostSource, Region, Tensor, assert_apart};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What the planner must know of a device before it exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// The name in messages, such as `cpu`.
    pub name: String,
    /// Offsets and sizes in the arena are multiples of this, in bytes.
    pub alignment: u64,
    /// Memory the device's operations need besides their operands, reserved behind the arena.
    pub scratch_bytes: u64,
    /// Whether operations read host memory in place, so that weights need no upload.
    pub reads_host_memory: bool,
}

/// What a matrix product does to its result before it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// `x / (1 + e^-x)`.
    Silu,
    /// GELU in its tanh form.
    GeluTanh,
}

/// A matrix product: `activation(x · weightᵀ + bias)`.
#[derive(Clone, Copy)]
pub struct Linear<'a> {
    /// `[rows, K]` (leading dimensions are folded into rows).
    pub x: &'a Tensor,
    /// `[N, K]`.
    pub weight: &'a Tensor,
    /// `[N]`.
    pub bias: Option<&'a Tensor>,
    /// Applied before the store.
    pub activation: Activation,
}

/// A product of two thin matrices, `factor · b · a`, which low-rank adaptation adds to a weight
/// (LoRA; Hu et al. 2021, §4.1).
#[derive(Clone, Copy)]
pub struct LowRank<'a> {
    /// `[R, K]`.
    pub a: &'a Tensor,
    /// `[N, R]`.
    pub b: &'a Tensor,
    /// Multiplies the product.
    pub factor: f32,
}

/// Layer normalisation over the last dimension with an affine map and, where given, an adaptive
/// one: `(norm(x) · weight + bias) · (1 + scale) + shift`.
#[derive(Clone, Copy)]
pub struct LayerNorm<'a> {
    /// `[rows, D]`.
    pub x: &'a Tensor,
    /// `[D]`.
    pub weight: &'a Tensor,
    /// `[D]`.
    pub bias: &'a Tensor,
    /// Added to the variance.
    pub eps: f32,
    /// `(shift, scale)`, each `[D]`.
    pub modulation: Option<(&'a Tensor, &'a Tensor)>,
}

/// Rotary positions: each adjacent pair of a head's elements is turned by an angle.
#[derive(Clone, Copy)]
pub struct Rope<'a> {
    /// `[positions, head_dim / 2]`, f32.
    pub cos: &'a Tensor,
    /// `[positions, head_dim / 2]`, f32.
    pub sin: &'a Tensor,
    /// The row that has the first position; rows before it are not turned.
    pub first_row: usize,
}

/// Layer normalisation of each head of a query or key, then rotary positions.
#[derive(Clone, Copy)]
pub struct QkNorm<'a> {
    /// `[head_dim]`.
    pub weight: &'a Tensor,
    /// `[head_dim]`.
    pub bias: &'a Tensor,
    /// Added to the variance.
    pub eps: f32,
    /// Absent for models with additive positions.
    pub rope: Option<Rope<'a>>,
}

/// Attention of every row to every row, head by head: `softmax(scale · q kᵀ + bias) v`.
#[derive(Clone, Copy)]
pub struct Attention<'a> {
    /// `[rows, heads · head_dim]`.
    pub q: &'a Tensor,
    /// Like `q`.
    pub k: &'a Tensor,
    /// Like `q`.
    pub v: &'a Tensor,
    /// The number of heads.
    pub heads: usize,
    /// Multiplies the scores.
    pub scale: f32,
    /// `[heads, 2 · rows - 1]`: what is added to a score, by `key - query + rows - 1`.
    pub bias: Option<&'a Tensor>,
    /// Where in each row of the destination the result begins: some heads of many can be computed
    /// by themselves.
    pub first_column: usize,
}

/// A 3×3 convolution of frames, or a 3×3×3 one, which makes each of its results of three frames: its own,
/// and the two before.
#[derive(Clone, Copy)]
pub struct Conv<'a> {
    /// Padded frames `[stride · height + 2, stride · width + 2, channels in]` of one type, earliest
    /// first: as many as results; for a 3×3×3 one, two more stand before them.
    pub frames: &'a [&'a Tensor],
    /// Pixels from one place of the filter to the next, down and to the right: 1 or 2. With 1 the
    /// filter's middle lies on the pixel that it makes. With 2 its first corner lies on the first
    /// of the four pixels that become one: of the border only the last row and column are read.
    pub stride: usize,
    /// `[depth · 9, channels in, channels out]`, taps in the order time, row, column; the depth is 1 or 3.
    pub weight: &'a Tensor,
    /// `[channels out]`.
    pub bias: &'a Tensor,
    /// Whether to add to the destinations instead of overwriting them.
    pub accumulate: bool,
}

impl<'a> Conv<'a> {
    /// Frames that make a result: 1 or 3.
    pub fn depth(&self) -> usize {
        self.weight.dims()[0] / 9
    }

    /// The convolution that makes result `index` alone.
    pub fn single(&self, index: usize) -> Conv<'a> {
        Conv { frames: &self.frames[index..index + self.depth()], ..*self }
    }

    /// Asserts that there are frames for these results, and that none overlaps what it or another is made of.
    ///
    /// # Panics
    /// If that is not so.
    pub fn assert_apart(&self, dst: &[Tensor]) {
        assert_eq!(self.frames.len() + 1, dst.len() + self.depth(), "frames of a convolution");
        for (n, result) in dst.iter().enumerate() {
            let others = &dst[n + 1..];
            let read = self.frames.iter().copied().chain([self.weight, self.bias]);
            assert_apart(result, read.chain(others));
        }
    }
}

/// Group normalisation of a frame by statistics computed before, then an optional product with
/// spatial modulation, then an optional SiLU.
#[derive(Clone, Copy)]
pub struct GroupNorm<'a> {
    /// `[groups, 2]`, f32: mean and reciprocal standard deviation.
    pub statistics: &'a Tensor,
    /// `[channels]`.
    pub weight: &'a Tensor,
    /// `[channels]`.
    pub bias: &'a Tensor,
    /// `(factor, summand)`, each `[h, w, channels]`, enlarged to the frame by nearest neighbour:
    /// row `y` reads `y · h / height`.
    pub modulation: Option<(&'a Tensor, &'a Tensor)>,
    /// Whether `x / (1 + e^-x)` follows.
    pub silu: bool,
}

/// A direction in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// From top to bottom.
    Vertical,
    /// From left to right.
    Horizontal,
}

/// A device: reserves one arena for a job, and others for weights that stay, and computes in them.
pub trait Device: Send + Sync {
    /// What a plan must know of this device.
    fn profile(&self) -> &Profile;

    /// Bytes that could be reserved now, scratch included, without taking anybody else's. `None`
    /// where the device has no memory of its own.
    fn free_bytes(&self) -> Option<u64> {
        None
    }

    /// Bytes of its memory that this process has taken in whatever way, by what the device's driver tells of
    /// all processes: unlike [`Device::free_bytes`], it stays the same when others take or give back. `None`
    /// where that is not told.
    fn taken_bytes(&self) -> Option<u64> {
        None
    }

    /// What has been copied since the device was made.
    fn copied(&self) -> Copied;

    /// Reserves the arena: `bytes` for tensors, and the profile's scratch behind them. An arena
    /// held before is given back first.
    ///
    /// # Errors
    /// [`Error::Device`] if the memory cannot be had.
    fn reserve(&self, bytes: u64) -> Result<(), Error>;

    /// Gives the arena back; warm regions stay. No operation may follow before the next
    /// [`Device::reserve`].
    fn release(&self);

    /// Reserves `bytes`, a multiple of the profile's alignment and not 0, that stay beyond a job,
    /// without scratch. Copies to them need no arena.
    ///
    /// # Errors
    /// [`Error::Device`] if the memory cannot be had, or the device keeps nothing beyond a job.
    fn reserve_warm(&self, _bytes: u64) -> Result<Region, Error> {
        let what = "nothing can be kept on it beyond a job".to_owned();
        Err(Error::Device { device: self.profile().name.clone(), what })
    }

    /// Gives a warm region back. No operation may use its tensors any more.
    fn release_warm(&self, _region: Region) {}

    /// Waits for everything asked for so far.
    ///
    /// # Errors
    /// [`Error::Device`] if any of it failed.
    fn finish(&self) -> Result<(), Error>;

    /// What follows, up to the matching [`Device::end_repeat`], stands for this many passes of a
    /// loop. For devices that count; others need not listen.
    fn begin_repeat(&self, _times: usize) {}

    /// Ends [`Device::begin_repeat`].
    fn end_repeat(&self) {}

    /// A unit of work was asked for. For devices that count, and those that would run far behind.
    fn unit_done(&self) {}

    /// Fills a range of the job's arena with values that make every result wrong that depends on them.
    /// For tests.
    fn poison(&self, _offset: u64, _bytes: u64) {}

    /// Host values to the device, rounded to the type of `dst`. `values` has as many elements.
    fn upload(&self, values: &[f32], dst: &mut Tensor);

    /// Device values to the host, widened to f32; waits for what was asked for before. `values`
    /// has as many elements as `src`.
    ///
    /// # Errors
    /// [`Error::Device`] if an operation before it failed.
    fn download(&self, src: &Tensor, values: &mut [f32]) -> Result<(), Error>;

    /// A fence behind all computing asked for so far.
    fn fence(&self) -> Fence;

    /// Holds back what the computing queue is asked for from now on until `fence` is passed.
    ///
    /// # Errors
    /// [`Error::Transfer`] if the copy that ends at `fence` failed; its destination then has
    /// unspecified contents. Copies begun later are not touched by that.
    fn wait(&self, fence: Fence) -> Result<(), Error>;

    /// Begins to copy the bytes of `source` to `dst`, which has as many, once all of `after` are
    /// passed. The fence is passed when they are there.
    fn begin_upload(&self, source: Arc<dyn HostSource>, dst: &Tensor, after: &[Fence]) -> Fence;

    /// Begins to copy the bytes of `src` to the first bytes of `dst` once all of `after` are
    /// passed. The fence is passed when they are there.
    fn begin_download(&self, src: &Tensor, dst: &HostBuffer, after: &[Fence]) -> Fence;

    /// `dst = src`, rounded to the type of `dst`. Equal numbers of elements.
    fn cast(&self, src: &Tensor, dst: &mut Tensor);

    /// `dst += src`. Equal numbers of elements.
    fn add(&self, src: &Tensor, dst: &mut Tensor);

    /// `dst = Σ factor · tensor`, summed in the order given; at least one term, all of the
    /// destination's number of elements. `dst` may be one of the terms.
    fn combine(&self, terms: &[(f64, &Tensor)], dst: &mut Tensor);

    /// Classifier-free guidance: `dst = unconditional + scale · (conditional - unconditional)`
    /// (Ho and Salimans 2022, eq. 6). Equal numbers of elements.
    fn guide(&self, unconditional: &Tensor, conditional: &Tensor, scale: f64, dst: &mut Tensor);

    /// `dst = x / (1 + e^-x)`. Equal numbers of elements.
    fn silu(&self, x: &Tensor, dst: &mut Tensor);

    /// See [`Linear`]; `dst` is `[rows, N]`.
    fn linear(&self, op: Linear<'_>, dst: &mut Tensor);

    /// `weight += Σ factor · b · a`, see [`LowRank`]; `weight` is `[N, K]`. Each product is a chain in
    /// the order of R, begun at zero; each is then multiplied by its factor, rounded to f32, and
    /// added to what the weight was, in the order of the terms. The sum is rounded once, on store.
    fn low_rank_add(&self, terms: &[LowRank<'_>], weight: &mut Tensor);

    /// `dst = x / sqrt(mean(x²) + eps) · weight` over the last dimension; `weight` is `[D]`, `dst`
    /// like `x`.
    fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f32, dst: &mut Tensor);

    /// `dst = gelu_tanh(dst) · x`. Equal shapes.
    fn gelu_gate(&self, x: &Tensor, dst: &mut Tensor);

    /// See [`LayerNorm`]; `dst` is like `x`, and may be `x`.
    fn layer_norm(&self, op: LayerNorm<'_>, dst: &mut Tensor);

    /// See [`QkNorm`]; in place on `x`, `[rows, heads · head_dim]`.
    fn qk_norm(&self, op: QkNorm<'_>, x: &mut Tensor);

    /// See [`Attention`]; `dst` is `[rows, W]`, `W` at least `first_column + heads · head_dim`; its
    /// other columns stay as they are. If there are none, `dst` may be `q`.
    fn attention(&self, op: Attention<'_>, dst: &mut Tensor);

    /// `dst += gate · x`; `x` and `dst` `[rows, D]`, `gate` `[D]`.
    fn gated_residual(&self, x: &Tensor, gate: &Tensor, dst: &mut Tensor);

    /// Cuts latents into patches, one row each. `latents` are `[F, C, h, w]` each, concatenated on
    /// channels; `patch` is `(pt, p)`; `dst` is `[F/pt · h/p · w/p, ΣC · pt · p · p]`: rows in the
    /// order frame, row, column, features in the order channel, time, row, column.
    fn patchify(&self, latents: &[&Tensor], patch: (usize, usize), dst: &mut Tensor);

    /// The inverse of [`Device::patchify`] for one tensor: `dst` is `[F, C, h, w]`.
    fn unpatchify(&self, src: &Tensor, patch: (usize, usize), dst: &mut Tensor);

    /// A rectangle of one latent frame, channels last, times `factor`: `src` is `[C, H, W]`, `dst`
    /// `[h, w, C]`, taken from row `top` and column `left`; if `padded`, `dst` is
    /// `[h + 2, w + 2, C]` with a zero border.
    fn latent_frame(
        &self,
        src: &Tensor,
        corner: (usize, usize),
        factor: f32,
        padded: bool,
        dst: &mut Tensor,
    );

    /// A frame into a latent frame, channels first: `frame` `[h, w, C]` becomes the rectangle of
    /// `dst`, `[C, H, W]`, that begins at row `corner.0` and column `corner.1`. The other elements
    /// stay as they are.
    fn store_latent(&self, frame: &Tensor, corner: (usize, usize), dst: &mut Tensor);

    /// A draw from the posterior that an encoder describes (Kingma and Welling 2014), scaled:
    /// `dst = (mean + exp(clamp(logvar, -30, 20) / 2) · noise) · factor`, each operation rounded to
    /// the type of `dst` as the reference does. `moments` are `[F, 2·C, h, w]`, the means before
    /// the logarithms of variances; `noise` and `dst` `[F, C, h, w]`; all are of one type. `dst`
    /// may be `noise`.
    fn posterior_sample(&self, moments: &Tensor, noise: &Tensor, factor: f64, dst: &mut Tensor);

    /// See [`Conv`]; `dst` are `[height, width, channels out]` of one type, apart from each other.
    fn conv(&self, op: Conv<'_>, dst: &mut [Tensor]);

    /// Mean and reciprocal standard deviation of each group of channels over all `frames`
    /// (`[height, width, channels]`; the same frame may occur twice). `statistics` is
    /// `[groups, 2]`, f32. `partials` is `[frames, height, groups · 2]`, f32: each row's sum and
    /// squared deviation, combined in a fixed order (Chan et al. 1979).
    fn group_norm_statistics(
        &self,
        frames: &[&Tensor],
        eps: f32,
        partials: &mut Tensor,
        statistics: &mut Tensor,
    );

    /// See [`GroupNorm`]; `frame` is `[height, width, channels]`, `dst` the padded frame.
    fn group_norm(&self, op: GroupNorm<'_>, frame: &Tensor, dst: &mut Tensor);

    /// Doubles height and width by nearest neighbour: `frame` `[height, width, channels]`, `dst`
    /// padded, `[2·height + 2, 2·width + 2, channels]`.
    fn upsample(&self, frame: &Tensor, dst: &mut Tensor);

    /// The mean of `frames`, which are one or two `[height, width, channels]`; `dst` is the padded
    /// frame.
    fn mean_of_frames(&self, frames: &[&Tensor], dst: &mut Tensor);

    /// Copies a rectangle between frames: `dst`, `[h, w, C]`, from `src`, `[H, W, C]`, at row
    /// `corner.0` and column `corner.1`.
    fn crop(&self, src: &Tensor, corner: (usize, usize), dst: &mut Tensor);

    /// Blends the first `extent` rows (columns) of `tile` with the last ones of `before`, which
    /// lies above (left of) it: line `i` becomes `before · (1 - i/extent) + tile · i/extent`.
    /// Frames `[h, w, C]` that agree in the other two lengths; `extent` is at most either length.
    fn blend(&self, before: &Tensor, tile: &mut Tensor, axis: Axis, extent: usize);

    /// Decoder output to brightness: `dst = clamp(src / 2 + 1/2, 0, 1)`, each operation rounded to
    /// the type of `src` as the reference does. `dst` is f32 or like `src`; equal shapes.
    fn to_unit_range(&self, src: &Tensor, dst: &mut Tensor);
}
