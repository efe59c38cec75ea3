//! The layers of encoder and decoder over tables of frames.

use super::caches::{Caches, Window};
use crate::weights::Block;
use vidfit_tensor::{Activation, Context, Conv, DType, Error, GroupNorm, Tensor};

/// The latents of one chunk: what the decoder's norms are modulated by.
pub(super) struct Latents {
    /// `[h, w, latent channels]` each, scaled for the decoder.
    pub frames: Vec<Tensor>,
}

impl Latents {
    /// The latent frame that belongs to frame `t` of `count` (`CogVideoXSpatialNorm3D`): the
    /// nearest, but where `count` is odd the first frame has the first latent for itself.
    fn index(&self, t: usize, count: usize) -> usize {
        let latents = self.frames.len();
        match (count > 1 && count % 2 == 1, t) {
            (true, 0) => 0,
            (true, _) => 1 + (t - 1) * (latents - 1) / (count - 1),
            (false, _) => t * latents / count,
        }
    }
}

/// Pixels, borders included, of the frames that are convolved at once. A small frame alone leaves most of a large
/// card idle (60×90 pixels of 512 channels make 96 blocks of threads); large ones come one by one, so that each
/// ends before the next begins. It changes no bit.
const PIXELS_AT_ONCE: usize = 20_000;

/// Frames are convolved at once if one takes at least so many multiply-adds: what takes less is done before it
/// matters that others wait, and would only hold memory.
const WORK_AT_ONCE: usize = 1 << 30;

/// A causal 3×3×3 convolution that is fed padded frames, one after another. Before the first frame
/// of a video stand two copies of it.
pub(super) struct CausalConv<'a> {
    cx: &'a Context<'a>,
    weight: &'a Tensor,
    bias: &'a Tensor,
    window: Option<Window>,
}

impl<'a> CausalConv<'a> {
    /// Continues from what `caches` hold for this layer.
    pub fn resume(
        cx: &'a Context<'a>,
        w: &'a Block,
        key: &str,
        caches: &mut Caches,
        name: &str,
    ) -> Result<Self, Error> {
        Ok(CausalConv {
            cx,
            weight: w.get(&format!("{key}.weight")),
            bias: w.get(&format!("{key}.bias")),
            window: caches.take(cx, name)?,
        })
    }

    /// Convolves all of `inputs`. `step` makes of an input, by its number, the padded frame that is read,
    /// which may be the one before it, and the frame that the result goes to, or is added to.
    ///
    /// # Errors
    /// As `step` and [`Context::check`].
    pub fn convolve<T>(
        &mut self,
        accumulate: bool,
        inputs: impl IntoIterator<Item = T>,
        mut step: impl FnMut(usize, T, Option<&Tensor>) -> Result<(Tensor, Tensor), Error>,
    ) -> Result<Vec<Tensor>, Error> {
        let mut inputs = inputs.into_iter().peekable();
        let (mut padded, mut results) = (Vec::<Tensor>::new(), Vec::new());
        while let Some(input) = inputs.next() {
            self.cx.check()?;
            let previous = padded.last().or(self.window.as_ref().map(|window| &window.previous));
            let (frame, result) = step(results.len(), input, previous)?;
            padded.push(frame);
            results.push(result);
            if padded.len() >= self.at_once(&padded[0]) || inputs.peek().is_none() {
                let first = results.len() - padded.len();
                self.feed(std::mem::take(&mut padded), accumulate, &mut results[first..]);
            }
        }
        Ok(results)
    }

    /// How many frames like this one are convolved at once.
    fn at_once(&self, padded: &Tensor) -> usize {
        let pixels = padded.rows();
        match pixels * self.weight.shape().elements() < WORK_AT_ONCE {
            true => 1,
            false => (PIXELS_AT_ONCE / pixels).max(1),
        }
    }

    /// Feeds padded frames; each makes one of `dst`, or is added to it.
    fn feed(&mut self, padded: Vec<Tensor>, accumulate: bool, dst: &mut [Tensor]) {
        let window = self
            .window
            .take()
            .unwrap_or_else(|| Window { earlier: padded[0].clone(), previous: padded[0].clone() });
        let mut table = vec![window.earlier, window.previous];
        table.extend(padded);
        let frames: Vec<&Tensor> = table.iter().collect();
        let op =
            Conv { frames: &frames, stride: 1, weight: self.weight, bias: self.bias, accumulate };
        self.cx.device.conv(op, dst);
        let mut last = table.into_iter().rev();
        if let (Some(previous), Some(earlier)) = (last.next(), last.next()) {
            self.window = Some(Window { earlier, previous });
        }
    }

    /// Leaves the last two frames for the next chunk.
    pub fn suspend(self, caches: &mut Caches, name: &str) -> Result<(), Error> {
        match self.window {
            Some(window) => caches.put(self.cx, name, window),
            None => Ok(()),
        }
    }
}

/// How a stage normalises.
#[derive(Clone, Copy)]
pub(super) struct Norms<'a> {
    pub groups: usize,
    /// Added to variances.
    pub eps: f32,
    /// What the decoder's norms are modulated by; the encoder's are plain.
    pub latents: Option<&'a Latents>,
}

/// A group norm whose statistics are known, in the decoder modulated by the latents.
pub(super) struct Norm<'a> {
    cx: &'a Context<'a>,
    key: &'a str,
    statistics: Tensor,
    weight: &'a Tensor,
    bias: &'a Tensor,
    /// Factor and summand of each latent frame, at the latents' resolution. (The reference
    /// enlarges the latents first; a 1×1×1 convolution commutes with that.)
    modulations: Vec<(Tensor, Tensor)>,
    /// For each frame, the latent frame that modulates it.
    latent_of: Vec<usize>,
}

impl<'a> Norm<'a> {
    /// Takes the statistics of `frames`, all of a chunk.
    pub fn measure(
        cx: &'a Context<'a>,
        w: &'a Block,
        key: &'a str,
        norms: Norms<'_>,
        frames: &[Tensor],
    ) -> Result<Self, Error> {
        let (first, Norms { groups, eps, latents }) = (&frames[0], norms);
        let (height, channels) = (first.dims()[0], first.columns());
        let mut statistics = cx.alloc("group norm statistics", DType::F32, [groups, 2])?;
        let shape = [frames.len(), height, groups * 2];
        let mut partials = cx.alloc("group norm partials", DType::F32, shape)?;
        let handles: Vec<&Tensor> = frames.iter().collect();
        cx.device.group_norm_statistics(&handles, eps, &mut partials, &mut statistics);
        drop(partials);

        let Some(latents) = latents else {
            let weight = w.get(&format!("{key}.weight"));
            let bias = w.get(&format!("{key}.bias"));
            let (modulations, latent_of) = (Vec::new(), Vec::new());
            return Ok(Norm { cx, key, statistics, weight, bias, modulations, latent_of });
        };
        let weight = w.get(&format!("{key}.norm_layer.weight"));
        let bias = w.get(&format!("{key}.norm_layer.bias"));
        let project = |conv: &str, z: &Tensor| -> Result<Tensor, Error> {
            let shape = [z.dims()[0], z.dims()[1], channels];
            let mut dst = cx.alloc(conv, first.dtype(), shape)?;
            w.linear(cx, &format!("{key}.{conv}.conv"), z, Activation::None, &mut dst);
            Ok(dst)
        };
        let modulations =
            latents.frames.iter().map(|z| Ok((project("conv_y", z)?, project("conv_b", z)?)));
        let modulations = modulations.collect::<Result<_, Error>>()?;
        let latent_of = (0..frames.len()).map(|t| latents.index(t, frames.len())).collect();
        Ok(Norm { cx, key, statistics, weight, bias, modulations, latent_of })
    }

    /// Whether frames `a` and `b`, if they have the same elements, have the same result.
    pub fn same_modulation(&self, a: usize, b: usize) -> bool {
        self.latent_of.get(a) == self.latent_of.get(b)
    }

    /// Norm, modulation and SiLU of frame number `t`, padded for a convolution.
    pub fn apply(&self, t: usize, frame: &Tensor) -> Result<Tensor, Error> {
        let mut padded = self.cx.alloc(self.key, frame.dtype(), padded(frame))?;
        let modulation = self.latent_of.get(t).map(|&latent| {
            let (factor, summand) = &self.modulations[latent];
            (factor, summand)
        });
        let Norm { statistics, weight, bias, .. } = self;
        let op = GroupNorm { statistics, weight, bias, modulation, silu: true };
        self.cx.device.group_norm(op, frame, &mut padded);
        Ok(padded)
    }
}

/// The shape of a frame with a border for a convolution.
fn padded(frame: &Tensor) -> [usize; 3] {
    let [height, width, channels] = *frame.dims() else {
        panic!("a frame is [height, width, channels], not {frame:?}");
    };
    [height + 2, width + 2, channels]
}

/// `CogVideoXResnetBlock3D` over one chunk. Each input frame goes into the first convolution and
/// into the shortcut, and ends there.
pub(super) fn resnet(
    cx: &Context<'_>,
    w: &Block,
    name: &str,
    norms: Norms<'_>,
    frames: Vec<Tensor>,
    caches: &mut Caches,
) -> Result<Vec<Tensor>, Error> {
    let outputs = w.get("conv1.conv.bias").columns();
    let norm = Norm::measure(cx, w, "norm1", norms, &frames)?;
    // A frame that was doubled in time is the same frame twice: it is normalised once.
    let repeats: Vec<bool> = (0..frames.len())
        .map(|t| t > 0 && frames[t].is_same(&frames[t - 1]) && norm.same_modulation(t, t - 1))
        .collect();

    let cache = format!("{name}.conv1");
    let mut conv = CausalConv::resume(cx, w, "conv1.conv", caches, &cache)?;
    let mut skipped: Vec<Tensor> = Vec::new();
    // The second of a doubled frame ends once its convolution is asked for, before the next frame begins.
    let mut doubled = None;
    let inner = conv.convolve(false, frames, |t, frame, previous| {
        drop(doubled.take());
        let padded = match previous {
            Some(previous) if repeats[t] => previous.clone(),
            _ => norm.apply(t, &frame)?,
        };
        let [height, width, _] = *frame.dims() else { panic!("a frame has three dimensions") };
        let shorter = match skipped.last() {
            // The same frame has the same shortcut.
            Some(previous) if repeats[t] => {
                doubled = Some(frame);
                copy(cx, previous)?
            }
            _ => shortcut(cx, w, frame, outputs)?,
        };
        skipped.push(shorter);
        let dst = cx.alloc("conv1", padded.dtype(), [height, width, outputs])?;
        Ok((padded, dst))
    })?;
    drop(doubled);
    conv.suspend(caches, &cache)?;
    drop(norm);

    let norm = Norm::measure(cx, w, "norm2", norms, &inner)?;
    let cache = format!("{name}.conv2");
    let mut conv = CausalConv::resume(cx, w, "conv2.conv", caches, &cache)?;
    let sums = conv.convolve(true, inner.into_iter().zip(skipped), |t, (frame, sum), _| {
        Ok((norm.apply(t, &frame)?, sum))
    })?;
    conv.suspend(caches, &cache)?;
    Ok(sums)
}

/// A frame of its own with the same elements.
fn copy(cx: &Context<'_>, frame: &Tensor) -> Result<Tensor, Error> {
    let mut dst = cx.alloc("shortcut", frame.dtype(), frame.shape())?;
    cx.device.cast(frame, &mut dst);
    Ok(dst)
}

/// The frame that a resnet's result is added to: the input itself where that is free to be
/// overwritten.
fn shortcut(cx: &Context<'_>, w: &Block, frame: Tensor, outputs: usize) -> Result<Tensor, Error> {
    if w.find("conv_shortcut.weight").is_none() {
        return if frame.is_sole_handle() { Ok(frame) } else { copy(cx, &frame) };
    }
    let shape = [frame.dims()[0], frame.dims()[1], outputs];
    let mut dst = cx.alloc("shortcut", frame.dtype(), shape)?;
    w.linear(cx, "conv_shortcut", &frame, Activation::None, &mut dst);
    Ok(dst)
}

/// `CogVideoXUpsample3D`: doubles height and width, and perhaps time. Frames that time doubles
/// are computed once and stand in the table twice.
pub(super) fn upsample(
    cx: &Context<'_>,
    w: &Block,
    doubles_time: bool,
    frames: Vec<Tensor>,
) -> Result<Vec<Tensor>, Error> {
    let count = frames.len();
    let mut enlarged = Vec::new();
    for (t, frame) in frames.into_iter().enumerate() {
        cx.check()?;
        let [height, width, channels] = *frame.dims() else {
            panic!("a frame is [height, width, channels], not {frame:?}");
        };
        let shape = [2 * height + 2, 2 * width + 2, channels];
        let mut padded = cx.alloc("upsampled", frame.dtype(), shape)?;
        cx.device.upsample(&frame, &mut padded);
        let dtype = frame.dtype();
        drop(frame);
        let mut dst = cx.alloc("upsampler conv", dtype, [2 * height, 2 * width, channels])?;
        let op = Conv {
            frames: &[&padded],
            stride: 1,
            weight: w.get("conv.weight"),
            bias: w.get("conv.bias"),
            accumulate: false,
        };
        cx.device.conv(op, std::slice::from_mut(&mut dst));
        // Odd counts keep their first frame single; one alone is a picture, not a video.
        let single = !doubles_time || (count % 2 == 1 && t == 0);
        if !single {
            enlarged.push(dst.clone());
        }
        enlarged.push(dst);
    }
    Ok(enlarged)
}

/// `CogVideoXDownsample3D`: halves height and width, and perhaps time: of an odd number of frames
/// the first stays, and of the others each pair becomes its mean. Frames end where they are read.
pub(super) fn downsample(
    cx: &Context<'_>,
    w: &Block,
    halves_time: bool,
    frames: Vec<Tensor>,
) -> Result<Vec<Tensor>, Error> {
    let (count, dtype) = (frames.len(), frames[0].dtype());
    let single = if halves_time { count % 2 } else { count };
    let mut reduced = Vec::new();
    let mut frames = frames.into_iter();
    while let Some(first) = frames.next() {
        cx.check()?;
        let second = if reduced.len() < single { None } else { frames.next() };
        let mut mean = cx.alloc("downsampled", dtype, padded(&first))?;
        let pair: Vec<&Tensor> = std::iter::once(&first).chain(&second).collect();
        cx.device.mean_of_frames(&pair, &mut mean);
        let [height, width, channels] = *first.dims() else {
            panic!("a frame has three dimensions")
        };
        drop((first, second));
        let mut dst = cx.alloc("downsampler conv", dtype, [height / 2, width / 2, channels])?;
        let op = Conv {
            frames: &[&mean],
            stride: 2,
            weight: w.get("conv.weight"),
            bias: w.get("conv.bias"),
            accumulate: false,
        };
        cx.device.conv(op, std::slice::from_mut(&mut dst));
        reduced.push(dst);
    }
    Ok(reduced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vidfit_cpu::CpuDevice;
    use vidfit_tensor::{Arena, Device, DryDevice, Unwatched, solve};

    const CHANNELS: usize = 160;
    const SIZE: usize = 40;

    fn values(count: usize, seed: u64) -> Vec<f32> {
        let step = |n: u64| (n * 2_654_435_761 + seed * 40_503) % 1009;
        (0..count as u64).map(|n| step(n) as f32 / 504.5 - 1.0).collect()
    }

    /// The results of five frames, which the convolution is given so many at a time. The first it makes at once
    /// if it may.
    fn convolved(device: &dyn Device, arena: &Arena, at_a_time: usize) -> Vec<Tensor> {
        let cx = Context::new(device, arena, &Unwatched);
        let filled = |label: &str, shape: &[usize], seed| {
            let mut tensor = cx.alloc(label, DType::F32, shape).unwrap();
            device.upload(&values(tensor.shape().elements(), seed), &mut tensor);
            tensor
        };
        let weights = [
            ("conv.weight".to_owned(), filled("weight", &[27, CHANNELS, CHANNELS], 1)),
            ("conv.bias".to_owned(), filled("bias", &[CHANNELS], 2)),
        ];
        let block = Block::new(weights.into());
        let mut caches = Caches::new(1, 0);
        let mut conv = CausalConv::resume(&cx, &block, "conv", &mut caches, "conv").unwrap();
        let mut results = Vec::new();
        for seeds in [3, 4, 5, 6, 7].chunks(at_a_time) {
            let made = conv.convolve(false, seeds, |_, &seed, _| {
                let frame = filled("frame", &[SIZE + 2, SIZE + 2, CHANNELS], seed);
                Ok((frame, cx.alloc("result", DType::F32, [SIZE, SIZE, CHANNELS])?))
            });
            results.extend(made.unwrap());
        }
        results
    }

    #[test]
    fn frames_that_are_convolved_at_once_have_the_bits_of_each_by_itself() {
        let device = CpuDevice::new(2).unwrap();
        let bits = |at_a_time: usize| {
            let dry = Arena::record(device.profile().alignment);
            drop(convolved(&DryDevice::new(device.profile().clone()), &dry, at_a_time));
            let layout = solve(&dry.into_trace().unwrap());
            let peak_bytes = layout.peak_bytes;
            device.reserve(peak_bytes).unwrap();
            let results = convolved(&device, &Arena::replay(layout), at_a_time);
            device.finish().unwrap();
            let download = |tensor: &Tensor| {
                let mut values = vec![0.0; tensor.shape().elements()];
                device.download(tensor, &mut values).unwrap();
                values.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            (peak_bytes, results.iter().map(download).collect::<Vec<_>>())
        };
        let (apart, together) = (bits(1), bits(5));
        assert!(apart.1 == together.1, "another result");
        // Five frames are alive at once instead of three.
        let frame = (SIZE + 2) * (SIZE + 2) * CHANNELS * 4;
        assert!(together.0 - apart.0 >= 2 * frame as u64, "{} after {}", together.0, apart.0);
    }

    #[test]
    fn odd_chunks_give_their_first_frame_the_first_latent() {
        let latents = |n| Latents { frames: vec![Tensor::nowhere(DType::F32, [1, 1, 16]); n] };
        let of = |n, count| (0..count).map(|t| latents(n).index(t, count)).collect::<Vec<_>>();
        assert_eq!(of(3, 9), [0, 1, 1, 1, 1, 2, 2, 2, 2]);
        assert_eq!(of(3, 5), [0, 1, 1, 2, 2]);
        assert_eq!(of(2, 8), [0, 0, 0, 0, 1, 1, 1, 1]);
        assert_eq!(of(1, 1), [0]);
    }
}
