//! The operations that are timed: for each class some that its terms can be told apart by, at
//! widths of the published models, and a tiny one for what a call costs by itself.

use vidfit_tensor::{
    Activation, Attention, Conv, DType, Device, Error, GroupNorm, LayerNorm, Linear, QkNorm, Rope,
    Tensor,
};

/// Calls one operation; the number counts the repeats.
type Call = Box<dyn Fn(&dyn Device, &[Tensor], usize) -> Result<(), Error>>;

/// One operation.
pub(super) struct Case {
    pub name: String,
    pub operands: Vec<(DType, Vec<usize>)>,
    pub call: Call,
}

/// All cases.
pub(super) fn all() -> Vec<Case> {
    [DType::F32, DType::BF16, DType::F16].into_iter().flat_map(of_type).collect()
}

fn of_type(dtype: DType) -> Vec<Case> {
    let f32 = DType::F32;
    let plain = Activation::None;
    vec![
        linear([4, 32, 32], f32, dtype, plain),
        linear([1, 4096, 2048], f32, dtype, plain),
        linear([32, 2048, 2048], f32, dtype, plain),
        linear([226, 2048, 2048], f32, dtype, plain),
        linear([226, 64, 192], f32, dtype, plain),
        linear([480, 1024, 2048], f32, dtype, Activation::GeluTanh),
        linear([960, 1024, 1024], f32, dtype, plain),
        linear([960, 1024, 1024], dtype, dtype, plain),
        linear([960, 3072, 3072], dtype, dtype, plain),
        linear([20_000, 16, 256], dtype, dtype, plain),
        linear([10_000, 256, 128], dtype, dtype, plain),
        attention(16, 2, 64, dtype),
        attention(226, 8, 64, dtype),
        attention(1216, 2, 64, dtype),
        attention(1216, 2, 16, dtype),
        attention(4000, 1, 64, dtype),
        conv(3, (8, 8), (16, 16), dtype, dtype),
        conv(3, (8, 12), (512, 512), dtype, dtype),
        conv(3, (16, 24), (512, 256), dtype, dtype),
        conv(3, (30, 45), (16, 512), dtype, dtype),
        conv(3, (24, 40), (256, 256), dtype, dtype),
        conv(1, (40, 60), (256, 256), dtype, DType::F16),
        conv(3, (40, 90), (128, 128), dtype, DType::F16),
        conv(3, (8, 8), (8, 4), dtype, dtype),
        conv(3, (32, 32), (4, 4), dtype, dtype),
        conv(3, (80, 120), (128, 3), dtype, dtype),
        layer_norm(16, 128, dtype),
        layer_norm(1216, 1920, dtype),
        layer_norm(3000, 1920, dtype),
        qk_norm(2048, 30, dtype),
        rms_norm(1000, 4096, dtype),
        statistics((4, 4), 16, 4, dtype),
        statistics((60, 90), 256, 32, dtype),
        statistics((160, 180), 128, 32, dtype),
        group_norm((4, 4), 16, 4, dtype),
        group_norm((60, 90), 256, 32, dtype),
        group_norm((160, 180), 128, 32, dtype),
        add(256, dtype),
        add(1 << 22, dtype),
        cast(1 << 22, dtype),
        silu(1 << 22, dtype),
        gelu_gate(500, 10240, dtype),
        gated_residual(3000, 1920, dtype),
        upsample((80, 120), 128, dtype),
        upload(256, dtype),
        upload(1 << 20, dtype),
        download(256, dtype),
        download(1 << 20, dtype),
    ]
}

fn case(
    name: String,
    operands: Vec<(DType, Vec<usize>)>,
    call: impl Fn(&dyn Device, &[Tensor], usize) -> Result<(), Error> + 'static,
) -> Case {
    Case { name, operands, call: Box::new(call) }
}

/// A case whose last operand is the destination.
fn simple(
    name: String,
    operands: Vec<(DType, Vec<usize>)>,
    call: impl Fn(&dyn Device, &[Tensor], &mut Tensor) + 'static,
) -> Case {
    case(name, operands, move |device, tensors, _| {
        let Some((dst, operands)) = tensors.split_last() else { return Ok(()) };
        call(device, operands, &mut dst.clone());
        Ok(())
    })
}

/// How many weights take turns, so that none is in a cache when it is its turn, as in a model.
const TURNS: usize = 4;

fn linear(sizes: [usize; 3], x: DType, weight: DType, activation: Activation) -> Case {
    let [rows, depth, columns] = sizes;
    let operands = vec![
        (x, vec![rows, depth]),
        (weight, vec![TURNS * columns, depth]),
        (weight, vec![columns]),
        (x, vec![rows, columns]),
    ];
    let name = format!("linear {rows}x{depth}x{columns} {x} {weight}");
    case(name, operands, move |device, tensors, repeat| {
        let turn = repeat % TURNS;
        let weight = tensors[1].slice(turn * columns..(turn + 1) * columns);
        let op = Linear { x: &tensors[0], weight: &weight, bias: Some(&tensors[2]), activation };
        device.linear(op, &mut tensors[3].clone());
        Ok(())
    })
}

fn attention(rows: usize, heads: usize, head: usize, dtype: DType) -> Case {
    let name = format!("attention {rows}x{heads}x{head} {dtype}");
    let operands = vec![(dtype, vec![rows, heads * head]); 4];
    simple(name, operands, move |device, tensors, dst| {
        let [q, k, v] = tensors else { return };
        let op = Attention { q, k, v, heads, scale: 0.125, bias: None, first_column: 0 };
        device.attention(op, dst);
    })
}

fn conv(
    frames: usize,
    (height, width): (usize, usize),
    (inputs, outputs): (usize, usize),
    dtype: DType,
    weight: DType,
) -> Case {
    let name = format!("conv {frames}x{height}x{width} {inputs}->{outputs} {dtype} {weight}");
    let mut operands = vec![(dtype, vec![height + 2, width + 2, inputs]); frames];
    operands.push((weight, vec![frames * 9, inputs, outputs]));
    operands.push((weight, vec![outputs]));
    operands.push((dtype, vec![height, width, outputs]));
    simple(name, operands, move |device, tensors, dst| {
        let frames: Vec<&Tensor> = tensors[..frames].iter().collect();
        let [weight, bias] = &tensors[frames.len()..] else { return };
        let op = Conv { frames: &frames, stride: 1, weight, bias, accumulate: false };
        device.conv(op, std::slice::from_mut(dst));
    })
}

fn layer_norm(rows: usize, width: usize, dtype: DType) -> Case {
    let line = (dtype, vec![width]);
    let (x, dst) = ((dtype, vec![rows, width]), (dtype, vec![rows, width]));
    let operands = vec![x, line.clone(), line.clone(), line.clone(), line, dst];
    simple(format!("layer norm {rows}x{width} {dtype}"), operands, |device, tensors, dst| {
        let [x, weight, bias, shift, scale] = tensors else { return };
        let op = LayerNorm { x, weight, bias, eps: 1e-5, modulation: Some((shift, scale)) };
        device.layer_norm(op, dst);
    })
}

fn qk_norm(rows: usize, heads: usize, dtype: DType) -> Case {
    let line = (dtype, vec![64]);
    let table = (DType::F32, vec![rows, 32]);
    let operands = vec![line.clone(), line, table.clone(), table, (dtype, vec![rows, heads * 64])];
    simple(format!("qk norm {rows}x{heads}x64 {dtype}"), operands, |device, tensors, x| {
        let [weight, bias, cos, sin] = tensors else { return };
        let rope = Some(Rope { cos, sin, first_row: 0 });
        device.qk_norm(QkNorm { weight, bias, eps: 1e-6, rope }, x);
    })
}

fn rms_norm(rows: usize, width: usize, dtype: DType) -> Case {
    let operands =
        vec![(dtype, vec![rows, width]), (dtype, vec![width]), (dtype, vec![rows, width])];
    simple(format!("rms norm {rows}x{width} {dtype}"), operands, |device, tensors, dst| {
        device.rms_norm(&tensors[0], &tensors[1], 1e-6, dst);
    })
}

fn statistics(
    (height, width): (usize, usize),
    channels: usize,
    groups: usize,
    dtype: DType,
) -> Case {
    let name = format!("statistics 3x{height}x{width}x{channels} {dtype}");
    let mut operands = vec![(dtype, vec![height, width, channels]); 3];
    operands.push((DType::F32, vec![3, height, 2 * groups]));
    operands.push((DType::F32, vec![groups, 2]));
    simple(name, operands, |device, tensors, dst| {
        let frames: Vec<&Tensor> = tensors[..3].iter().collect();
        device.group_norm_statistics(&frames, 1e-6, &mut tensors[3].clone(), dst);
    })
}

fn group_norm(
    (height, width): (usize, usize),
    channels: usize,
    groups: usize,
    dtype: DType,
) -> Case {
    let line = (dtype, vec![channels]);
    let modulation = (dtype, vec![height.div_ceil(4), width.div_ceil(4), channels]);
    let operands = vec![
        (DType::F32, vec![groups, 2]),
        line.clone(),
        line,
        modulation.clone(),
        modulation,
        (dtype, vec![height, width, channels]),
        (dtype, vec![height + 2, width + 2, channels]),
    ];
    let name = format!("group norm {height}x{width}x{channels} {dtype}");
    simple(name, operands, |device, tensors, dst| {
        let [statistics, weight, bias, factor, summand, frame] = tensors else { return };
        let modulation = Some((factor, summand));
        let op = GroupNorm { statistics, weight, bias, modulation, silu: true };
        device.group_norm(op, frame, dst);
    })
}

fn add(elements: usize, dtype: DType) -> Case {
    let operands = vec![(dtype, vec![elements]); 2];
    simple(format!("add {elements} {dtype}"), operands, |device, tensors, dst| {
        device.add(&tensors[0], dst);
    })
}

fn cast(elements: usize, dtype: DType) -> Case {
    let operands = vec![(DType::F32, vec![elements]), (dtype, vec![elements])];
    simple(format!("cast {elements} {dtype}"), operands, |device, tensors, dst| {
        device.cast(&tensors[0], dst);
    })
}

fn silu(elements: usize, dtype: DType) -> Case {
    let operands = vec![(dtype, vec![elements]); 2];
    simple(format!("silu {elements} {dtype}"), operands, |device, tensors, dst| {
        device.silu(&tensors[0], dst);
    })
}

fn gelu_gate(rows: usize, width: usize, dtype: DType) -> Case {
    let operands = vec![(dtype, vec![rows, width]); 2];
    simple(format!("gelu gate {rows}x{width} {dtype}"), operands, |device, tensors, dst| {
        device.gelu_gate(&tensors[0], dst);
    })
}

fn gated_residual(rows: usize, width: usize, dtype: DType) -> Case {
    let operands =
        vec![(dtype, vec![rows, width]), (dtype, vec![width]), (dtype, vec![rows, width])];
    simple(format!("gated residual {rows}x{width} {dtype}"), operands, |device, tensors, dst| {
        device.gated_residual(&tensors[0], &tensors[1], dst);
    })
}

fn upsample((height, width): (usize, usize), channels: usize, dtype: DType) -> Case {
    let operands = vec![
        (dtype, vec![height, width, channels]),
        (dtype, vec![2 * height + 2, 2 * width + 2, channels]),
    ];
    let name = format!("upsample {height}x{width}x{channels} {dtype}");
    simple(name, operands, |device, tensors, dst| device.upsample(&tensors[0], dst))
}

fn upload(elements: usize, dtype: DType) -> Case {
    let values = vec![1.0; elements];
    let operands = vec![(dtype, vec![elements])];
    simple(format!("upload {elements} {dtype}"), operands, move |device, _, dst| {
        device.upload(&values, dst);
    })
}

fn download(elements: usize, dtype: DType) -> Case {
    let operands = vec![(dtype, vec![elements])];
    case(format!("download {elements} {dtype}"), operands, move |device, tensors, _| {
        // A result goes into memory that was just taken, as in a run.
        device.download(&tensors[0], &mut vec![0.0; elements])
    })
}
