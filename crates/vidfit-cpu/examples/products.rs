//! Times the matrix products of the CPU device at the sizes of real models.
//!
//! `cargo run --release -p vidfit-cpu --example products -- [threads] [part of a name] [repeats]`
//! prints the shortest of some repeats, and on Linux the least processor time of one, which other
//! programs disturb less.

use std::time::Instant;
use vidfit_cpu::CpuDevice;
use vidfit_tensor::*;

type Operands = Vec<(DType, Vec<usize>)>;
type Call = Box<dyn Fn(&CpuDevice, &[Tensor])>;

struct Case {
    name: String,
    operands: Operands,
    operations: f64,
    call: Call,
}

fn linear(rows: usize, depth: usize, columns: usize, x: DType, weight: DType) -> Case {
    let call = |device: &CpuDevice, t: &[Tensor]| {
        let op =
            Linear { x: &t[0], weight: &t[1], bias: Some(&t[2]), activation: Activation::GeluTanh };
        device.linear(op, &mut t[3].clone());
    };
    Case {
        name: format!("linear {rows}x{depth}x{columns} {x} {weight}"),
        operands: vec![
            (x, vec![rows, depth]),
            (weight, vec![columns, depth]),
            (DType::F32, vec![columns]),
            (x, vec![rows, columns]),
        ],
        operations: 2.0 * (rows * depth * columns) as f64,
        call: Box::new(call),
    }
}

fn attention(rows: usize, heads: usize, head_dim: usize, dtype: DType) -> Case {
    let call = move |device: &CpuDevice, t: &[Tensor]| {
        let (scale, bias, first_column) = (0.125, None, 0);
        let op = Attention { q: &t[0], k: &t[1], v: &t[2], heads, scale, bias, first_column };
        device.attention(op, &mut t[3].clone());
    };
    Case {
        name: format!("attention {rows}x{heads}x{head_dim} {dtype}"),
        operands: vec![(dtype, vec![rows, heads * head_dim]); 4],
        operations: 4.0 * (rows * rows * heads * head_dim) as f64,
        call: Box::new(call),
    }
}

fn conv(frames: usize, size: (usize, usize), channels: (usize, usize), dtype: DType) -> Case {
    let call = move |device: &CpuDevice, t: &[Tensor]| {
        let inputs: Vec<&Tensor> = t[..frames].iter().collect();
        let [weight, bias, dst] = &t[frames..] else { unreachable!() };
        let op = Conv { frames: &inputs, stride: 1, weight, bias, accumulate: false };
        device.conv(op, &mut [dst.clone()]);
    };
    let (height, width) = size;
    let (channels_in, channels_out) = channels;
    let mut operands = vec![(dtype, vec![height + 2, width + 2, channels_in]); frames];
    operands.push((dtype, vec![frames * 9, channels_in, channels_out]));
    operands.push((dtype, vec![channels_out]));
    operands.push((dtype, vec![height, width, channels_out]));
    Case {
        name: format!("conv {frames}x{height}x{width} {channels_in}->{channels_out} {dtype}"),
        operands,
        operations: 2.0 * (frames * 9 * height * width * channels_in * channels_out) as f64,
        call: Box::new(call),
    }
}

/// What the threads of this process have used so far.
fn processor_seconds() -> Option<f64> {
    let used = |task: std::io::Result<std::fs::DirEntry>| -> Option<f64> {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        Some(text.split(' ').next()?.parse::<f64>().ok()? * 1e-9)
    };
    std::fs::read_dir("/proc/self/task").ok()?.map(used).sum()
}

/// Seconds, and processor seconds.
fn time(case: &Case, threads: usize, repeats: usize) -> Result<(f64, Option<f64>), Error> {
    let device = CpuDevice::new(threads)?;
    let alloc = |arena: &Arena| -> Result<Vec<Tensor>, Error> {
        let each = case.operands.iter();
        each.map(|(dtype, shape)| arena.alloc("operand", *dtype, &shape[..])).collect()
    };
    let dry = Arena::record(device.profile().alignment);
    drop(alloc(&dry)?);
    let layout = solve(&dry.into_trace()?);
    device.reserve(layout.peak_bytes)?;
    let mut tensors = alloc(&Arena::replay(layout))?;
    for (n, tensor) in tensors.iter_mut().enumerate() {
        let value = |i: usize| ((i * 7919 + n * 31) % 8191) as f32 / 4096.0 - 1.0;
        let values: Vec<f32> = (0..tensor.shape().elements()).map(value).collect();
        device.upload(&values, tensor);
    }
    let (mut best, mut best_used) = (f64::INFINITY, None::<f64>);
    for _ in 0..repeats {
        let (start, used) = (Instant::now(), processor_seconds());
        (case.call)(&device, &tensors);
        device.finish()?;
        best = best.min(start.elapsed().as_secs_f64());
        let used = processor_seconds().zip(used).map(|(end, start)| end - start);
        best_used = used.map(|used| best_used.map_or(used, |best| best.min(used)));
    }
    Ok((best, best_used))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let threads = arguments.next().map_or(Ok(0), |n| n.parse())?;
    let wanted = arguments.next().unwrap_or_default();
    let repeats = arguments.next().map_or(Ok(5), |n| n.parse())?;
    use DType::{BF16, F32};
    let cases = [
        linear(1216, 1920, 7680, F32, F32),
        linear(1216, 7680, 1920, F32, F32),
        linear(17776, 1920, 1920, F32, F32),
        linear(17776, 1920, 1920, BF16, BF16),
        linear(226, 4096, 10240, F32, F32),
        linear(226, 4096, 10240, F32, BF16),
        linear(1, 512, 18432, F32, F32),
        linear(1, 512, 18432, F32, BF16),
        linear(50, 512, 18432, F32, F32),
        linear(345_600, 256, 128, F32, F32),
        linear(345_600, 16, 256, F32, F32),
        attention(17776, 3, 64, F32),
        attention(17776, 3, 64, BF16),
        attention(1216, 30, 64, F32),
        conv(3, (60, 90), (512, 512), F32),
        conv(3, (120, 180), (256, 256), F32),
        conv(3, (120, 180), (256, 256), BF16),
        conv(3, (240, 360), (128, 128), F32),
        conv(3, (480, 720), (128, 128), F32),
        conv(3, (480, 720), (128, 3), F32),
        conv(3, (60, 90), (16, 512), F32),
        conv(1, (480, 720), (256, 256), F32),
    ];
    for case in cases.iter().filter(|case| case.name.contains(&wanted)) {
        let (seconds, used) = time(case, threads, repeats)?;
        let rate = |seconds: f64| case.operations / seconds / 1e9;
        print!("{:36} {seconds:9.5} s {:7.1} GFLOP/s", case.name, rate(seconds));
        if let Some(used) = used {
            print!("; {used:9.5} s, {:6.1} GFLOP/s of a processor", rate(used));
        }
        println!();
    }
    Ok(())
}
