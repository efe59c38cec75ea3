//! A device that makes one deliberate mistake, so that tests can show that they would notice.

mod mistake;

pub use mistake::Mistake;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use vidfit_cpu::CpuDevice;
use vidfit_tensor::*;

use Mistake::*;

/// Computes on the CPU, but for one mistake, and notes what memory it is asked for.
pub struct Saboteur {
    inner: CpuDevice,
    mistake: Option<Mistake>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// A gated residual of text that waits for that of video.
    text: Option<(Tensor, Tensor, Tensor)>,
    /// A vertical blend that waits for the horizontal one.
    vertical: Option<(Tensor, Tensor, usize)>,
    /// How often each convolution, by its weight's place, has run in this chunk.
    convolved: BTreeMap<u64, usize>,
    /// The last frame that was read to be reduced.
    reduced: Option<Tensor>,
    /// Chunks begun.
    chunks: usize,
    /// Whether latent frames are being cut out, or frames uploaded.
    cutting: bool,
    /// Whether those chunks are the encoder's.
    encodes: bool,
    /// Every reservation.
    reserved: Vec<u64>,
    /// The end of the highest operand in the arena.
    highest_byte: u64,
}

impl Saboteur {
    /// A device on two threads; without a mistake it is a [`CpuDevice`].
    pub fn new(mistake: Option<Mistake>) -> Arc<Saboteur> {
        let inner = CpuDevice::new(2).unwrap();
        Arc::new(Saboteur { inner, mistake, state: Mutex::default() })
    }

    /// The bytes of every reservation so far.
    pub fn reserved(&self) -> Vec<u64> {
        self.state().reserved.clone()
    }

    /// The end of the highest element of the arena that an operation was given to read or to
    /// write, since the last reservation.
    pub fn highest_byte(&self) -> u64 {
        self.state().highest_byte
    }

    /// Notes how high an operation's operands reach. They must lie in what was reserved.
    fn note<'a>(&self, operands: impl IntoIterator<Item = &'a Tensor>) {
        let mut state = self.state();
        let reserved = state.reserved.last().copied().unwrap_or(0);
        for tensor in operands {
            if let Place::Arena(life) = tensor.place() {
                let end = life.offset() + tensor.first_byte() + tensor.bytes();
                assert!(end <= reserved, "{tensor:?} ends at {end}, behind {reserved}");
                state.highest_byte = state.highest_byte.max(end);
            }
        }
    }

    fn makes(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn values(&self, tensor: &Tensor) -> Vec<f32> {
        let mut values = vec![0.0; tensor.shape().elements()];
        self.inner.download(tensor, &mut values).unwrap();
        values
    }

    /// A copy in host memory, whose life is no concern of the arena's.
    fn copy(&self, tensor: &Tensor) -> Tensor {
        host_tensor(&self.values(tensor), tensor.shape())
    }

    /// Does the vertical blend that was put off.
    fn flush(&self) {
        if let Some((before, mut tile, extent)) = self.state().vertical.take() {
            self.inner.blend(&before, &mut tile, Axis::Vertical, extent);
        }
    }

    /// Rotary positions alone, on the host.
    fn turn(&self, rope: Rope<'_>, x: &mut Tensor) {
        let (cos, sin) = (self.values(rope.cos), self.values(rope.sin));
        let (pairs, columns) = (rope.cos.columns(), x.columns());
        let mut values = self.values(x);
        for (row, values) in values.chunks_exact_mut(columns).enumerate().skip(rope.first_row) {
            for (pair, xy) in values.chunks_exact_mut(2).enumerate() {
                let at = (row - rope.first_row) * pairs + pair % pairs;
                let (a, b) = (xy[0], xy[1]);
                xy[0] = a * cos[at] - b * sin[at];
                xy[1] = b * cos[at] + a * sin[at];
            }
        }
        self.inner.upload(&values, x);
    }
}

fn host_tensor(values: &[f32], shape: Shape) -> Tensor {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::from_host(Arc::new(bytes), 0, DType::F32, shape)
}

impl Saboteur {
    /// As [`Device::conv`] of one result.
    fn single_conv(&self, op: Conv<'_>, dst: &mut Tensor) {
        self.note([op.weight, op.bias, dst].into_iter().chain(op.frames.iter().copied()));
        let dst = std::slice::from_mut(dst);
        if op.stride == 2 && self.makes(PaddedTopLeft) {
            // Moved down and to the right, the frame has its border where the filter begins.
            let (values, pitch) = (self.values(op.frames[0]), op.frames[0].dims()[1]);
            let by = (pitch + 1) * op.frames[0].columns();
            let moved = [vec![0.0; by], values[..values.len() - by].to_vec()].concat();
            let moved = host_tensor(&moved, op.frames[0].shape());
            return self.inner.conv(Conv { frames: &[&moved], ..op }, dst);
        }
        let mistaken = self.makes(ConvCacheDropped) || self.makes(ConvCacheZeroed);
        let (3, true) = (op.frames.len(), mistaken) else { return self.inner.conv(op, dst) };
        let Place::Arena(life) = op.weight.place() else { panic!("a repacked weight") };
        let mut state = self.state();
        let later_chunk = state.chunks > 1;
        let times = state.convolved.entry(life.offset()).or_default();
        *times += 1;
        let mut frames = [op.frames[0], op.frames[1], op.frames[2]];
        let zeros = host_tensor(&vec![0.0; frames[0].shape().elements()], frames[0].shape());
        // The first frame of a chunk has two cached ones before it, the second has one.
        let cached = if later_chunk { 3usize.saturating_sub(*times) } else { 0 };
        frames[..cached].fill(match self.mistake {
            Some(ConvCacheZeroed) => &zeros,
            _ => op.frames[cached],
        });
        self.inner.conv(Conv { frames: &frames, ..op }, dst);
    }
}

impl Device for Saboteur {
    fn qk_norm(&self, op: QkNorm<'_>, x: &mut Tensor) {
        self.note([op.weight, op.bias, x]);
        self.note(op.rope.iter().flat_map(|rope| [rope.cos, rope.sin]));
        match (self.mistake, op.rope) {
            (Some(RopeOff), _) => self.inner.qk_norm(QkNorm { rope: None, ..op }, x),
            (Some(RopeOnText), Some(rope)) => {
                let from_first = QkNorm { rope: Some(Rope { first_row: 0, ..rope }), ..op };
                for start in (0..rope.first_row).step_by(rope.cos.rows()) {
                    let end = rope.first_row.min(start + rope.cos.rows());
                    self.inner.qk_norm(from_first, &mut x.slice(start..end));
                }
                self.inner.qk_norm(from_first, &mut x.slice(rope.first_row..x.rows()));
            }
            (Some(RopeLate), Some(rope)) => {
                let rope = Rope { first_row: rope.first_row + 1, ..rope };
                self.inner.qk_norm(QkNorm { rope: Some(rope), ..op }, x);
            }
            (Some(QkNormDropped), Some(rope)) => self.turn(rope, x),
            (Some(QkNormDropped), None) => {}
            _ => self.inner.qk_norm(op, x),
        }
    }

    fn add(&self, src: &Tensor, dst: &mut Tensor) {
        self.note([src, dst]);
        // T5 adds f32 to its f32 stream; positions come from a host upload or a weight, as wide
        // as the transformer.
        let adds_positions = src.columns() == 128;
        if !(self.makes(PositionsDropped) && adds_positions) {
            self.inner.add(src, dst);
        }
    }

    fn gated_residual(&self, x: &Tensor, gate: &Tensor, dst: &mut Tensor) {
        self.note([x, gate, dst]);
        if !self.makes(GatesSwapped) {
            return self.inner.gated_residual(x, gate, dst);
        }
        let mut state = self.state();
        match state.text.take() {
            None => state.text = Some((self.copy(x), self.copy(gate), dst.clone())),
            Some((text, text_gate, mut text_dst)) => {
                self.inner.gated_residual(&text, gate, &mut text_dst);
                self.inner.gated_residual(x, &text_gate, dst);
            }
        }
    }

    fn layer_norm(&self, op: LayerNorm<'_>, dst: &mut Tensor) {
        self.note([op.x, op.weight, op.bias, dst]);
        self.note(op.modulation.iter().flat_map(|&(shift, scale)| [shift, scale]));
        match (self.mistake, op.modulation) {
            (Some(ShiftAndScaleSwapped), Some((shift, scale))) => {
                self.inner.layer_norm(LayerNorm { modulation: Some((scale, shift)), ..op }, dst);
            }
            (Some(FirstTailNormDropped), None) => self.inner.cast(op.x, dst),
            (Some(SecondTailNormDropped), Some((shift, scale))) if op.x.is_same(dst) => {
                let (shift, scale) = (self.values(shift), self.values(scale));
                let mut values = self.values(op.x);
                for row in values.chunks_exact_mut(shift.len()) {
                    for (x, (shift, scale)) in row.iter_mut().zip(shift.iter().zip(&scale)) {
                        *x = *x * (1.0 + scale) + shift;
                    }
                }
                self.inner.upload(&values, dst);
            }
            _ => self.inner.layer_norm(op, dst),
        }
    }

    fn attention(&self, op: Attention<'_>, dst: &mut Tensor) {
        self.note([op.q, op.k, op.v, dst].into_iter().chain(op.bias));
        match (self.mistake, op.bias) {
            (Some(AttentionUnscaled), None) => {
                self.inner.attention(Attention { scale: 1.0, ..op }, dst);
            }
            (Some(TextScaled), Some(_)) => {
                self.inner.attention(Attention { scale: 0.125, ..op }, dst);
            }
            (Some(TextBiasDropped), Some(_)) => {
                self.inner.attention(Attention { bias: None, ..op }, dst);
            }
            (Some(TextBiasMirrored), Some(bias)) => {
                let mut values = self.values(bias);
                values.chunks_exact_mut(bias.columns()).for_each(<[f32]>::reverse);
                let mirrored = host_tensor(&values, bias.shape());
                self.inner.attention(Attention { bias: Some(&mirrored), ..op }, dst);
            }
            _ => self.inner.attention(op, dst),
        }
    }

    fn silu(&self, x: &Tensor, dst: &mut Tensor) {
        self.note([x, dst]);
        if !self.makes(TimeSiluDropped) {
            self.inner.silu(x, dst);
        }
    }

    fn guide(&self, unconditional: &Tensor, conditional: &Tensor, scale: f64, dst: &mut Tensor) {
        self.note([unconditional, conditional, dst]);
        if self.makes(GuidanceSwapped) {
            self.inner.guide(conditional, unconditional, scale, dst);
        } else {
            self.inner.guide(unconditional, conditional, scale, dst);
        }
    }

    fn latent_frame(
        &self,
        src: &Tensor,
        corner: (usize, usize),
        factor: f32,
        padded: bool,
        dst: &mut Tensor,
    ) {
        self.note([src, dst]);
        let mut state = self.state();
        if !padded && !state.cutting {
            // Every chunk begins with its unpadded latents.
            state.convolved.clear();
            if std::mem::take(&mut state.encodes) {
                state.chunks = 0;
            }
            state.chunks = if corner == (0, 0) { state.chunks + 1 } else { state.chunks };
        }
        state.cutting = !padded;
        let factor = if self.makes(LatentsScaledUp) { 1.0 / factor } else { factor };
        self.inner.latent_frame(src, corner, factor, padded, dst);
    }

    fn conv(&self, op: Conv<'_>, dst: &mut [Tensor]) {
        for (n, result) in dst.iter_mut().enumerate() {
            self.single_conv(op.single(n), result);
        }
    }

    fn mean_of_frames(&self, frames: &[&Tensor], dst: &mut Tensor) {
        self.note(frames.iter().copied().chain([&*dst]));
        let mut state = self.state();
        let before = match self.makes(FirstFramePooled) {
            true => state.reduced.replace(self.copy(frames[frames.len() - 1])),
            false => None,
        };
        match (self.mistake, frames, before) {
            (Some(SecondFramesDropped), [first, _], _) => self.inner.mean_of_frames(&[first], dst),
            (Some(FirstFramePooled), [first, _], Some(before))
                if before.shape() == first.shape() =>
            {
                self.inner.mean_of_frames(&[&before, first], dst);
            }
            _ => self.inner.mean_of_frames(frames, dst),
        }
    }

    fn store_latent(&self, frame: &Tensor, corner: (usize, usize), dst: &mut Tensor) {
        self.note([frame, dst]);
        self.flush();
        self.inner.store_latent(frame, corner, dst);
    }

    fn posterior_sample(&self, moments: &Tensor, noise: &Tensor, factor: f64, dst: &mut Tensor) {
        self.note([moments, noise, dst]);
        match self.mistake {
            Some(PosteriorMean) => {
                let zeros = host_tensor(&vec![0.0; noise.shape().elements()], noise.shape());
                self.inner.posterior_sample(moments, &zeros, factor, dst);
            }
            Some(PosteriorUnhalved) => {
                let mut values = self.values(moments);
                let half = moments.dims()[1..].iter().product::<usize>() / 2;
                for frame in values.chunks_exact_mut(2 * half) {
                    frame[half..].iter_mut().for_each(|value| *value *= 2.0);
                }
                let moments = host_tensor(&values, moments.shape());
                self.inner.posterior_sample(&moments, noise, factor, dst);
            }
            _ => self.inner.posterior_sample(moments, noise, factor, dst),
        }
    }

    fn group_norm_statistics(
        &self,
        frames: &[&Tensor],
        eps: f32,
        partials: &mut Tensor,
        statistics: &mut Tensor,
    ) {
        self.note(frames.iter().copied().chain([&*partials, &*statistics]));
        let mut state = self.state();
        state.cutting &= !state.encodes;
        drop(state);
        if self.makes(StatisticsOfFirstFrame) {
            let partials = &mut partials.slice(0..1);
            self.inner.group_norm_statistics(&frames[..1], eps, partials, statistics);
        } else {
            self.inner.group_norm_statistics(frames, eps, partials, statistics);
        }
    }

    fn group_norm(&self, op: GroupNorm<'_>, frame: &Tensor, dst: &mut Tensor) {
        self.note([op.statistics, op.weight, op.bias, frame, dst]);
        self.note(op.modulation.iter().flat_map(|&(factor, summand)| [factor, summand]));
        let op = match self.mistake {
            Some(SpatialModulationDropped) => GroupNorm { modulation: None, ..op },
            Some(GroupNormSiluDropped) => GroupNorm { silu: false, ..op },
            _ => op,
        };
        self.inner.group_norm(op, frame, dst);
    }

    fn blend(&self, before: &Tensor, tile: &mut Tensor, axis: Axis, extent: usize) {
        self.note([before, tile]);
        match (self.mistake, axis) {
            (Some(BlendSkipped), _) => {}
            (Some(BlendOrder), Axis::Vertical) => {
                self.state().vertical = Some((before.clone(), tile.clone(), extent));
            }
            _ => self.inner.blend(before, tile, axis, extent),
        }
    }

    fn crop(&self, src: &Tensor, corner: (usize, usize), dst: &mut Tensor) {
        self.note([src, dst]);
        self.flush();
        self.inner.crop(src, corner, dst);
    }

    fn to_unit_range(&self, src: &Tensor, dst: &mut Tensor) {
        self.note([src, dst]);
        self.flush();
        self.inner.to_unit_range(src, dst);
    }

    fn profile(&self) -> &Profile {
        self.inner.profile()
    }

    fn reserve(&self, bytes: u64) -> Result<(), Error> {
        let reserved = [self.reserved(), vec![bytes]].concat();
        *self.state() = State { reserved, ..State::default() };
        self.inner.reserve(bytes)
    }

    fn release(&self) {
        self.inner.release();
    }

    fn finish(&self) -> Result<(), Error> {
        self.inner.finish()
    }

    fn poison(&self, offset: u64, bytes: u64) {
        self.inner.poison(offset, bytes);
    }

    fn download(&self, src: &Tensor, values: &mut [f32]) -> Result<(), Error> {
        self.note([src]);
        self.inner.download(src, values)
    }

    fn upload(&self, values: &[f32], dst: &mut Tensor) {
        self.note([&*dst]);
        let mut state = self.state();
        if dst.dims().len() == 3 && dst.columns() == 3 && !state.cutting {
            // Every chunk of the encoder, of a single tile, begins with frames from the host.
            state.convolved.clear();
            state.chunks = if state.encodes { state.chunks + 1 } else { 1 };
            (state.cutting, state.encodes) = (true, true);
        }
        drop(state);
        self.inner.upload(values, dst);
    }

    fn copied(&self) -> Copied {
        self.inner.copied()
    }

    fn fence(&self) -> Fence {
        self.inner.fence()
    }

    fn wait(&self, fence: Fence) -> Result<(), Error> {
        self.inner.wait(fence)
    }

    fn begin_upload(&self, source: Arc<dyn HostSource>, dst: &Tensor, after: &[Fence]) -> Fence {
        self.note([dst]);
        self.inner.begin_upload(source, dst, after)
    }

    fn begin_download(&self, src: &Tensor, dst: &HostBuffer, after: &[Fence]) -> Fence {
        self.note([src]);
        self.inner.begin_download(src, dst, after)
    }

    fn cast(&self, src: &Tensor, dst: &mut Tensor) {
        self.note([src, dst]);
        self.inner.cast(src, dst);
    }

    fn combine(&self, terms: &[(f64, &Tensor)], dst: &mut Tensor) {
        self.note(terms.iter().map(|(_, term)| *term).chain([&*dst]));
        self.inner.combine(terms, dst);
    }

    fn linear(&self, op: Linear<'_>, dst: &mut Tensor) {
        self.note([op.x, op.weight, dst].into_iter().chain(op.bias));
        self.inner.linear(op, dst);
    }

    fn low_rank_add(&self, terms: &[LowRank<'_>], weight: &mut Tensor) {
        self.note(terms.iter().flat_map(|term| [term.a, term.b]).chain([&*weight]));
        self.inner.low_rank_add(terms, weight);
    }

    fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f32, dst: &mut Tensor) {
        self.note([x, weight, dst]);
        self.inner.rms_norm(x, weight, eps, dst);
    }

    fn gelu_gate(&self, x: &Tensor, dst: &mut Tensor) {
        self.note([x, dst]);
        self.inner.gelu_gate(x, dst);
    }

    fn patchify(&self, latents: &[&Tensor], patch: (usize, usize), dst: &mut Tensor) {
        self.note(latents.iter().copied().chain([&*dst]));
        self.inner.patchify(latents, patch, dst);
    }

    fn unpatchify(&self, src: &Tensor, patch: (usize, usize), dst: &mut Tensor) {
        self.note([src, dst]);
        self.inner.unpatchify(src, patch, dst);
    }

    fn upsample(&self, frame: &Tensor, dst: &mut Tensor) {
        self.note([frame, dst]);
        self.inner.upsample(frame, dst);
    }
}
