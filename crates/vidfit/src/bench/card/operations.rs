//! The operations that take most of a job's time, each by itself, at the job's own sizes: what the card
//! can do at most in practice, and where the time of a step and of decoding goes.

use crate::bench::noise::noise;
use crate::bench::table::Table;
use crate::exit::Failure;
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::request::Job;
use vidfit_tensor::{
    Activation, Arena, Attention, Context, Conv, DType, Device, DryDevice, Error, GroupNorm,
    HostSource, LayerNorm, Linear, QkNorm, Rope, Tensor, Unwatched, solve,
};

/// What an operation takes.
#[derive(Serialize)]
pub struct Operation {
    /// Which.
    pub name: &'static str,
    /// One run of it.
    pub seconds: f64,
    /// Multiplications and additions of products.
    pub flops: f64,
    /// Bytes read and written, each operand counted once; of copies, those that are copied.
    pub bytes: f64,
}

/// How long an operation is repeated, so that what is around it does not count.
const REPEATED_SECONDS: f64 = 0.25;

/// Bytes of a copy: those of a block of the 5B family, if there is room for many such.
const COPY_BYTES: u64 = 264 << 20;

/// Sizes of a job.
struct Sizes {
    copy_bytes: u64,
    dtype: DType,
    tokens: usize,
    text_tokens: usize,
    width: usize,
    heads: usize,
    /// Of the decoder: pixels of a frame at the last level and at the first, with their channels.
    last: [usize; 3],
    first: [usize; 3],
    groups: usize,
}

/// Times each operation on the device.
///
/// # Errors
/// If it does not fit, or the device fails.
pub fn measure(
    device: &dyn Device,
    checkpoint: &Checkpoint,
    job: &Job,
) -> Result<Vec<Operation>, Failure> {
    let room = device.free_bytes().unwrap_or(u64::MAX);
    let sizes = Sizes::of(checkpoint, job, room)?;
    let dry = DryDevice::new(device.profile().clone());
    let arena = Arena::record(device.profile().alignment);
    let mut counted = Vec::new();
    run_all(&Context::new(&dry, &arena, &Unwatched), &sizes, &mut |name, operation| {
        let before = dry.tally();
        operation()?;
        let after = dry.tally();
        let copied = (after.uploaded_bytes - before.uploaded_bytes) as f64;
        let flops = after.flops - before.flops;
        let bytes = copied + after.traffic_bytes - before.traffic_bytes;
        counted.push(Operation { name, seconds: 0.0, flops, bytes });
        Ok(())
    })?;
    let layout = Arc::new(solve(&arena.into_trace()?));
    device.reserve(layout.peak_bytes)?;
    let arena = Arena::replay(layout);
    let mut times = Vec::new();
    let ran = run_all(&Context::new(device, &arena, &Unwatched), &sizes, &mut |_, operation| {
        times.push(time(device, operation)?);
        Ok(())
    });
    let ended = ran.and_then(|()| device.finish());
    device.release();
    ended?;
    counted.iter_mut().zip(times).for_each(|(operation, seconds)| operation.seconds = seconds);
    Ok(counted)
}

/// The time of one run, of as many as take a while.
fn time(
    device: &dyn Device,
    operation: &mut dyn FnMut() -> Result<(), Error>,
) -> Result<f64, Error> {
    let mut lap = |times: usize| {
        let began = Instant::now();
        for _ in 0..times {
            operation()?;
        }
        device.finish()?;
        Ok::<_, Error>(began.elapsed().as_secs_f64() / times as f64)
    };
    lap(1)?;
    let times = (REPEATED_SECONDS / lap(1)?.max(1e-7)).ceil().clamp(1.0, 1000.0);
    lap(times as usize)
}

impl Sizes {
    fn of(checkpoint: &Checkpoint, job: &Job, room: u64) -> Result<Sizes, Failure> {
        let (config, vae) = (&checkpoint.transformer.config, &checkpoint.vae.config);
        let grid = config.grid(job.latent_frames, job.latent_height, job.latent_width);
        let grid = grid.ok_or_else(|| Failure::input("the video has no whole patches"))?;
        let channels = &vae.block_out_channels;
        let [first, last] =
            [channels.last(), channels.first()].map(|channels| *channels.unwrap_or(&8));
        // Decoding in tiles makes no larger pieces than these.
        let tile = job.tiling.map_or((job.height, job.width), |tile| (tile.height, tile.width));
        let (height, width) = (tile.0.min(job.height), tile.1.min(job.width));
        let ratio = vae.spatial_ratio();
        Ok(Sizes {
            copy_bytes: COPY_BYTES.min(room / 16) / 4 * 4,
            dtype: job.dtype,
            tokens: grid.tokens() + config.max_text_seq_length,
            text_tokens: config.max_text_seq_length,
            width: config.num_attention_heads * config.attention_head_dim,
            heads: config.num_attention_heads,
            last: [height, width, last],
            first: [height / ratio, width / ratio, first],
            groups: vae.norm_num_groups,
        })
    }
}

/// What is called for each operation.
type Clock<'a> =
    dyn FnMut(&'static str, &mut dyn FnMut() -> Result<(), Error>) -> Result<(), Error> + 'a;

fn run_all(cx: &Context<'_>, sizes: &Sizes, clock: &mut Clock<'_>) -> Result<(), Error> {
    copies(cx, sizes.copy_bytes, clock)?;
    transformer(cx, sizes, clock)?;
    for (names, shape) in [
        (["convolution, last level", "group norm, last level"], sizes.last),
        (["convolution, first level", "group norm, first level"], sizes.first),
    ] {
        decoder(cx, sizes, names, shape, clock)?;
    }
    Ok(())
}

/// Copies to the device through pinned memory, and within it.
fn copies(cx: &Context<'_>, bytes: u64, clock: &mut Clock<'_>) -> Result<(), Error> {
    let (dtype, elements) = (DType::F32, bytes as usize / 4);
    let mut a = cx.upload("a", dtype, [elements], || values("a", elements))?;
    let b = cx.upload("b", dtype, [elements], || values("b", elements))?;
    let source: Arc<dyn HostSource> = Arc::new(Ones(bytes));
    clock("upload", &mut || {
        let fence = cx.device.begin_upload(source.clone(), &a, &[cx.device.fence()]);
        cx.device.wait(fence)
    })?;
    clock("sum in memory", &mut || {
        cx.device.add(&b, &mut a);
        Ok(())
    })
}

/// Host memory that costs nothing to read.
struct Ones(u64);

impl HostSource for Ones {
    fn len(&self) -> u64 {
        self.0
    }

    fn read(&self, _: u64, piece: &mut [u8]) -> Result<(), String> {
        piece.fill(1);
        Ok(())
    }
}

/// What a transformer block does to one half of guidance.
fn transformer(cx: &Context<'_>, sizes: &Sizes, clock: &mut Clock<'_>) -> Result<(), Error> {
    let &Sizes { dtype, tokens, text_tokens, width, heads, .. } = sizes;
    let device = cx.device;
    let random = |label: &str, shape: [usize; 2]| {
        cx.upload(label, dtype, shape, || values(label, shape[0] * shape[1]))
    };
    let vector =
        |label: &str, length: usize| cx.upload(label, dtype, [length], || values(label, length));
    let hidden = random("hidden", [tokens, width])?;
    let [mut q, mut k, mut v] = [
        random("q", [tokens, width])?,
        random("k", [tokens, width])?,
        random("v", [tokens, width])?,
    ];
    let mut inner = cx.alloc("inner", dtype, [tokens, 4 * width])?;
    let (square, up) = (random("to_q", [width, width])?, random("net.0", [4 * width, width])?);
    let down = random("net.2", [width, 4 * width])?;
    let (bias, up_bias) = (vector("bias", width)?, vector("up bias", 4 * width)?);
    let (head, positions) = (width / heads, tokens - text_tokens);
    let (norm, shift) = (vector("norm", head)?, vector("shift", head)?);
    let angles = [positions, head / 2];
    let angle = |label: &str| values(label, angles[0] * angles[1]);
    let cos = cx.upload("cos", DType::F32, angles, || angle("cos"))?;
    let sin = cx.upload("sin", DType::F32, angles, || angle("sin"))?;

    let linear = |x: &Tensor, weight: &Tensor, bias: &Tensor, activation, target: &mut Tensor| {
        device.linear(Linear { x, weight, bias: Some(bias), activation }, target);
        Ok(())
    };
    clock("layer norm", &mut || {
        let modulation = Some((&bias, &bias));
        let op = LayerNorm { x: &hidden, weight: &bias, bias: &bias, eps: 1e-5, modulation };
        device.layer_norm(op, &mut v);
        Ok(())
    })?;
    clock("to_q", &mut || linear(&hidden, &square, &bias, Activation::None, &mut q))?;
    clock("qk norm and RoPE", &mut || {
        let rope = Some(Rope { cos: &cos, sin: &sin, first_row: text_tokens });
        device.qk_norm(QkNorm { weight: &norm, bias: &shift, eps: 1e-6, rope }, &mut k);
        Ok(())
    })?;
    let mut attended = cx.alloc("attended", dtype, [tokens, width])?;
    clock("attention", &mut || {
        let scale = (head as f32).sqrt().recip();
        let op = Attention { q: &q, k: &k, v: &v, heads, scale, bias: None, first_column: 0 };
        device.attention(op, &mut attended);
        Ok(())
    })?;
    clock("gated residual", &mut || {
        device.gated_residual(&hidden, &bias, &mut attended);
        Ok(())
    })?;
    clock("ff up and GELU", &mut || {
        linear(&hidden, &up, &up_bias, Activation::GeluTanh, &mut inner)
    })?;
    clock("ff down", &mut || linear(&inner, &down, &bias, Activation::None, &mut attended))
}

/// What the decoder does to a frame.
fn decoder(
    cx: &Context<'_>,
    &Sizes { dtype, groups, .. }: &Sizes,
    [convolution, norm]: [&'static str; 2],
    [height, width, channels]: [usize; 3],
    clock: &mut Clock<'_>,
) -> Result<(), Error> {
    let device = cx.device;
    let random = |label: &str, dtype: DType, shape: &[usize]| {
        cx.upload(label, dtype, shape, || values(label, shape.iter().product()))
    };
    let padded = [height + 2, width + 2, channels];
    let frames = [(); 3].map(|()| random("frame", dtype, &padded));
    let [a, b, c] = frames;
    let (a, b, c) = (a?, b?, c?);
    let weight = random("weight", dtype, &[27, channels, channels])?;
    let (bias, statistics) =
        (random("bias", dtype, &[channels])?, random("statistics", DType::F32, &[groups, 2])?);
    let mut frame = cx.alloc("result", dtype, [height, width, channels])?;
    clock(convolution, &mut || {
        let frames = &[&a, &b, &c];
        let op = Conv { frames, stride: 1, weight: &weight, bias: &bias, accumulate: false };
        device.conv(op, std::slice::from_mut(&mut frame));
        Ok(())
    })?;
    let mut normed = cx.alloc("normed", dtype, padded)?;
    clock(norm, &mut || {
        let op = GroupNorm {
            statistics: &statistics,
            weight: &bias,
            bias: &bias,
            modulation: None,
            silu: true,
        };
        device.group_norm(op, &frame, &mut normed);
        Ok(())
    })
}

/// Values that differ from label to label.
fn values(label: &str, count: usize) -> Vec<f32> {
    noise(count, label.bytes().map(u32::from).sum())
}

/// All of them.
pub fn table(operations: &[Operation]) -> Table {
    let rows = operations.iter().map(|operation| {
        let rate = |amount: f64, unit: f64| match amount {
            0.0 => String::new(),
            amount => format!("{:.1}", amount / operation.seconds.max(1e-9) / unit),
        };
        vec![
            operation.name.to_owned(),
            format!("{:.3} ms", operation.seconds * 1e3),
            rate(operation.flops, 1e12),
            rate(operation.bytes, 1e9),
        ]
    });
    Table {
        title: "Single operations".into(),
        note:
            "At the sizes of the video below: a transformer block's for one half of guidance, the \
               decoder's for one frame."
                .into(),
        columns: vec!["", "time", "TFLOP/s", "GB/s"],
        words: 1,
        rows: rows.collect(),
    }
}
