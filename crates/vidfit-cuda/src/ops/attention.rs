//! Attention: `kernels/attention.cu`.

use crate::device::Session;
use crate::memory::View;
use crate::speed::Unit;
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
    first_block: u32,
    unused: u32,
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

    let Kernel { name, threads, shared_bytes, unit } = Kernel::of(session, &op, head_dim);
    let touched: Vec<&Tensor> = [op.q, op.k, op.v, &*dst].into_iter().chain(op.bias).collect();
    // Scores, and the sums of values.
    let of_query = 2 * (rows * head_dim) as u64;
    let blocks = rows.div_ceil(QUERIES);
    let parts = Parts::of(session, unit, of_query, rows, op.heads);
    for (head, heads, first_block, end_block) in parts.each(blocks, op.heads) {
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
            first_block: first_block as u32,
            unused: 0,
        };
        let queries = rows.min(end_block * QUERIES) - first_block * QUERIES;
        let work = (queries * heads) as u64 * of_query;
        let grid = [(end_block - first_block) as u32, heads as u32, 1];
        let size = (grid, [threads, 1, 1]);
        session.launch_work(name, size, shared_bytes, &arguments, &touched, (work, unit));
    }
}

/// What one launch is for: some heads, or, where one of them would take too long, some blocks of one.
///
/// In place over the queries, a block reads the queries of its own rows and columns alone.
#[derive(Debug, PartialEq)]
struct Parts {
    heads: usize,
    blocks: usize,
}

impl Parts {
    fn of(session: &Session<'_>, unit: Unit, of_query: u64, rows: usize, heads: usize) -> Parts {
        let blocks = session.parts(unit, of_query * QUERIES as u64, rows.div_ceil(QUERIES));
        Parts { heads: session.parts(unit, of_query * rows as u64, heads), blocks }
    }

    /// First head and number of heads, first block and the one behind the last, of each launch.
    fn each(
        self,
        blocks: usize,
        heads: usize,
    ) -> impl Iterator<Item = (usize, usize, usize, usize)> {
        let of_heads = move |head| {
            let first_blocks = (0..blocks).step_by(self.blocks);
            first_blocks.map(move |first| {
                let end = blocks.min(first + self.blocks);
                (head, self.heads.min(heads - head), first, end)
            })
        };
        (0..heads).step_by(self.heads).flat_map(of_heads)
    }
}

/// How a kernel is launched.
struct Kernel {
    name: &'static str,
    threads: u32,
    shared_bytes: u32,
    unit: Unit,
}

impl Kernel {
    fn of(session: &Session<'_>, op: &Attention<'_>, head_dim: usize) -> Kernel {
        let dtype = op.q.dtype();
        let one_type = op.k.dtype() == dtype && op.v.dtype() == dtype;
        // On tensor cores the scale is applied to the largest score, which it must leave the largest.
        if one_type && session.has_tensor_cores_for(dtype) && head_dim == 64 && op.scale > 0.0 {
            let by_type = |f16, bf16| if dtype == DType::F16 { f16 } else { bf16 };
            let (name, shared_bytes) = match op.bias {
                None => (by_type("attention_f16", "attention_bf16"), MATRIX_BYTES),
                Some(_) => (by_type("attention_f16_biased", "attention_bf16_biased"), BIASED_BYTES),
            };
            return Kernel { name, threads: 128, shared_bytes, unit: Unit::Tensor };
        }
        let (name, threads, shared_bytes) = match head_dim <= 64 {
            true => ("attention_exact_64", 128, EXACT_64_BYTES),
            false => ("attention_exact_128", 64, EXACT_128_BYTES),
        };
        Kernel { name, threads, shared_bytes, unit: Unit::F32 }
    }
}
