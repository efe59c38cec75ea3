//! Attention: `kernels/attention.cu`.

use crate::device::Session;
use crate::memory::View;
use std::f32::consts::LOG2_E;
use vidfit_tensor::{Attention, DType, Tensor};

/// Queries of a block (`ATTENTION_QUERIES`).
const QUERIES: usize = 128;
/// What the longest loads take, in bytes.
const CHUNK_BYTES: u64 = 16;
/// The largest head there is a kernel for.
const MAX_HEAD_DIM: usize = 128;

/// `ExactShared<64, 64>`: queries, keys or values, weights.
const EXACT_64_BYTES: u32 = 4 * ((64 + 32) * (64 + 4) + 64 * (32 + 4));
/// `ExactShared<128, 32>`.
const EXACT_128_BYTES: u32 = 4 * ((32 + 32) * (128 + 4) + 32 * (32 + 4));
/// `AttentionShared<false>`: four tiles of 64 rows.
const MATRIX_BYTES: u32 = 4 * 64 * 64 * 2;
/// `AttentionShared<true>`: two strips of biases with them.
const BIASED_BYTES: u32 = MATRIX_BYTES + 2 * 192 * 4;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct AttentionArguments {
    queries: View,
    keys: View,
    values: View,
    bias: View,
    target: View,
    columns: u64,
    target_columns: u64,
    first_column: u64,
    rows: u32,
    head_dim: u32,
    aligned: u32,
    scale: f32,
}

/// See [`vidfit_tensor::Device::attention`].
pub(crate) fn attention(session: &Session<'_>, op: Attention<'_>, dst: &mut Tensor) {
    let (rows, columns) = (op.q.rows(), op.q.columns());
    for other in [op.k, op.v] {
        assert_eq!((other.rows(), other.columns()), (rows, columns), "attention to {other:?}");
    }
    let end = op.first_column + columns;
    assert!(dst.rows() == rows && end <= dst.columns(), "{columns} columns to {end} of {dst:?}");
    let head_dim = columns / op.heads;
    assert!(head_dim * op.heads == columns && head_dim <= MAX_HEAD_DIM, "heads of {head_dim}");
    if let Some(bias) = op.bias {
        assert_eq!((bias.rows(), bias.columns()), (op.heads, 2 * rows - 1), "{bias:?}");
    }

    let (kernel, threads, shared_bytes) = kernel(session, &op, head_dim);
    let touched: Vec<&Tensor> = [op.q, op.k, op.v, &*dst].into_iter().chain(op.bias).collect();
    let at_once = heads_at_once(session.launch_work(), kernel, [rows, op.heads, head_dim]);
    for head in (0..op.heads).step_by(at_once) {
        // A head's own columns, of all operands: in place over the queries, too.
        let skipped = head * head_dim;
        let [queries, keys, values] =
            [op.q, op.k, op.v].map(|tensor| session.view(tensor).from(skipped, tensor.dtype()));
        let aligned = [queries, keys, values].iter().all(|view| view.address % CHUNK_BYTES == 0);
        let bias = |of: &Tensor| session.view(of).from(head * of.columns(), of.dtype());
        let arguments = AttentionArguments {
            queries,
            keys,
            values,
            bias: op.bias.map_or(View::NONE, bias),
            target: session.view(dst),
            columns: columns as u64,
            target_columns: dst.columns() as u64,
            first_column: (op.first_column + skipped) as u64,
            rows: u32::try_from(rows).expect("fewer than 2^32 rows"),
            head_dim: head_dim as u32,
            aligned: u32::from(aligned),
            scale: op.scale * LOG2_E,
        };
        let grid = [rows.div_ceil(QUERIES) as u32, at_once.min(op.heads - head) as u32, 1];
        session.launch(kernel, grid, [threads, 1, 1], shared_bytes, &arguments, &touched);
    }
}

/// How many heads one launch is for: so many that it ends soon, and at least one.
fn heads_at_once(launch_work: u64, kernel: &str, [rows, heads, head_dim]: [usize; 3]) -> usize {
    // What is computed without tensor cores takes several times as long.
    let most = if kernel.starts_with("attention_exact") { launch_work / 4 } else { launch_work };
    let of_one = 2 * (rows as u64).pow(2) * head_dim as u64;
    usize::try_from(most / of_one.max(1)).unwrap_or(heads).clamp(1, heads.max(1))
}

/// The kernel for these operands, its threads, its shared memory.
fn kernel(session: &Session<'_>, op: &Attention<'_>, head_dim: usize) -> (&'static str, u32, u32) {
    let dtype = op.q.dtype();
    let one_type = op.k.dtype() == dtype && op.v.dtype() == dtype;
    // On tensor cores the scale is applied to the largest score, which it must leave the largest.
    if one_type && session.has_tensor_cores_for(dtype) && head_dim == 64 && op.scale > 0.0 {
        let by_type = |f16, bf16| if dtype == DType::F16 { f16 } else { bf16 };
        return match op.bias {
            None => (by_type("attention_f16", "attention_bf16"), 128, MATRIX_BYTES),
            Some(_) => {
                (by_type("attention_f16_biased", "attention_bf16_biased"), 128, BIASED_BYTES)
            }
        };
    }
    if head_dim <= 64 {
        ("attention_exact_64", 128, EXACT_64_BYTES)
    } else {
        ("attention_exact_128", 64, EXACT_128_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::LAUNCH_WORK;

    #[test]
    fn a_launch_ends_before_a_desktop_ends_it() {
        let heads = |kernel, rows| heads_at_once(LAUNCH_WORK, kernel, [rows, 48, 64]);
        // 49 frames of 480×720; 81 and 161 of 768×1360.
        assert_eq!([17_776, 45_106, 85_906].map(|rows| heads("attention_f16", rows)), [48, 8, 2]);
        assert_eq!([17_776, 85_906].map(|rows| heads("attention_exact_64", rows)), [13, 1]);
        assert_eq!(heads("attention_f16", 0), 48);
    }
}
