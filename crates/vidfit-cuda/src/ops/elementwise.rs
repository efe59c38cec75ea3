//! Operations on each element by itself: `kernels/elementwise.cu`.

use crate::device::Session;
use crate::memory::View;
use bytemuck::{Pod, Zeroable};
use vidfit_tensor::Tensor;

const THREADS: u32 = 256;
/// Elements of a thread.
const EIGHT: u64 = 8;
/// Terms that a sum may have: as many as any scheduler's update.
const COMBINE_TERMS: usize = 4;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct MapArguments {
    source: View,
    target: View,
    elements: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct GuideArguments {
    unconditional: View,
    conditional: View,
    target: View,
    elements: u64,
    scale: f32,
    unused: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct CombineArguments {
    target: View,
    terms: [View; COMBINE_TERMS],
    factors: [f32; COMBINE_TERMS],
    elements: u64,
    count: u32,
    unused: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct GatedResidualArguments {
    x: View,
    gate: View,
    target: View,
    elements: u64,
    columns: u32,
    unused: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct PosteriorArguments {
    moments: View,
    noise: View,
    target: View,
    frame_elements: u64,
    factor: f32,
    unused: u32,
}

/// `dst = src`.
pub(crate) fn cast(session: &Session<'_>, src: &Tensor, dst: &mut Tensor) {
    map(session, "cast", src, dst);
}

/// `dst += src`.
pub(crate) fn add(session: &Session<'_>, src: &Tensor, dst: &mut Tensor) {
    map(session, "add", src, dst);
}

/// `dst = x / (1 + e^-x)`.
pub(crate) fn silu(session: &Session<'_>, x: &Tensor, dst: &mut Tensor) {
    map(session, "silu", x, dst);
}

/// `dst = gelu_tanh(dst) · x`.
pub(crate) fn gelu_gate(session: &Session<'_>, x: &Tensor, dst: &mut Tensor) {
    map(session, "gelu_gate", x, dst);
}

/// `dst = clamp(src / 2 + 1/2, 0, 1)`.
pub(crate) fn to_unit_range(session: &Session<'_>, src: &Tensor, dst: &mut Tensor) {
    assert_eq!(src.shape(), dst.shape());
    map(session, "to_unit_range", src, dst);
}

/// The factors are rounded to f32 before the products, as on the CPU.
pub(crate) fn combine(session: &Session<'_>, terms: &[(f64, &Tensor)], dst: &mut Tensor) {
    assert!(
        (1..=COMBINE_TERMS).contains(&terms.len()),
        "a combination of {} terms, not of 1 to {COMBINE_TERMS}",
        terms.len()
    );
    let mut arguments = CombineArguments {
        target: session.view(dst),
        terms: [View::NONE; COMBINE_TERMS],
        factors: [0.0; COMBINE_TERMS],
        elements: same_elements(terms[0].1, dst),
        count: terms.len() as u32,
        unused: 0,
    };
    let mut touched = vec![&*dst];
    for (n, &(factor, term)) in terms.iter().enumerate() {
        same_elements(term, dst);
        (arguments.terms[n], arguments.factors[n]) = (session.view(term), factor as f32);
        touched.push(term);
    }
    launch(session, "combine", [arguments.elements, 1], &arguments, &touched);
}

/// `dst = unconditional + scale · (conditional - unconditional)`.
pub(crate) fn guide(
    session: &Session<'_>,
    unconditional: &Tensor,
    conditional: &Tensor,
    scale: f64,
    dst: &mut Tensor,
) {
    same_elements(unconditional, dst);
    let arguments = GuideArguments {
        unconditional: session.view(unconditional),
        conditional: session.view(conditional),
        target: session.view(dst),
        elements: same_elements(conditional, dst),
        scale: scale as f32,
        unused: 0,
    };
    let touched = [unconditional, conditional, dst];
    launch(session, "guide", [arguments.elements, 1], &arguments, &touched);
}

/// `dst += gate · x`.
pub(crate) fn gated_residual(session: &Session<'_>, x: &Tensor, gate: &Tensor, dst: &mut Tensor) {
    let columns = dst.columns();
    assert_eq!(gate.shape().elements(), columns, "a gate of another width");
    let arguments = GatedResidualArguments {
        x: session.view(x),
        gate: session.view(gate),
        target: session.view(dst),
        elements: same_elements(x, dst),
        columns: u32::try_from(columns).expect("rows of less than 2^32 elements"),
        unused: 0,
    };
    // The kernel counts threads in 32 bits.
    assert!(arguments.elements < EIGHT << 32, "{dst:?} has too many elements");
    launch(session, "gated_residual", [arguments.elements, 1], &arguments, &[x, gate, dst]);
}

/// `dst = (mean + exp(clamp(logvar, -30, 20) / 2) · noise) · factor`.
pub(crate) fn posterior_sample(
    session: &Session<'_>,
    moments: &Tensor,
    noise: &Tensor,
    factor: f64,
    dst: &mut Tensor,
) {
    let &[frames, channels, height, width] = dst.dims() else { panic!("latents of {dst:?}") };
    assert_eq!(moments.dims(), [frames, 2 * channels, height, width]);
    assert_eq!(noise.shape(), dst.shape());
    let dtype = dst.dtype();
    assert_eq!((moments.dtype(), noise.dtype()), (dtype, dtype), "the reference has one type");
    let arguments = PosteriorArguments {
        moments: session.view(moments),
        noise: session.view(noise),
        target: session.view(dst),
        frame_elements: (channels * height * width) as u64,
        factor: factor as f32,
        unused: 0,
    };
    let size = [arguments.frame_elements, frames as u64];
    launch(session, "posterior_sample", size, &arguments, &[moments, noise, dst]);
}

fn map(session: &Session<'_>, kernel: &'static str, src: &Tensor, dst: &Tensor) {
    let elements = same_elements(src, dst);
    let arguments = MapArguments { source: session.view(src), target: session.view(dst), elements };
    launch(session, kernel, [elements, 1], &arguments, &[src, dst]);
}

/// Runs a kernel with a thread for every eight of so many elements, so many times.
fn launch<A: Pod>(
    session: &Session<'_>,
    kernel: &'static str,
    [elements, times]: [u64; 2],
    arguments: &A,
    touched: &[&Tensor],
) {
    let blocks = u32::try_from(elements.div_ceil(EIGHT * u64::from(THREADS)))
        .expect("a tensor of less than 2^42 elements");
    let times = u16::try_from(times).expect("less than 2^16 frames");
    session.launch(kernel, [blocks, times.into(), 1], [THREADS, 1, 1], 0, arguments, touched);
}

fn same_elements(a: &Tensor, b: &Tensor) -> u64 {
    let count = a.shape().elements();
    assert_eq!(count, b.shape().elements(), "{a:?} and {b:?}");
    count as u64
}
