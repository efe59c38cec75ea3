//! Matrix products: `kernels/linear.cu`.
//!
//! Every sum takes the inner dimension in one order, whatever kernel makes it of those that its types
//! allow. So the number of rows chooses the kernel, and changes no bit.
//!
//! A library of the card's maker may make the products of a model's large layers, in an order of its own.
//! So whether it does must not depend on what memory has to do with ([`Product`]).

use crate::device::Session;
use crate::driver::{PRODUCT_ALIGNMENT, Product};
use crate::memory::View;
use crate::speed::Unit;
use std::ops::Range;
use vidfit_tensor::{Activation, DType, Linear, LowRank, Tensor};

/// Rows of the largest tiles.
const LARGEST_SIDE: usize = 128;
/// From so many rows on, large tiles of the result keep every card busy.
const MANY_ROWS: usize = 513;
/// From so many columns on, the larger tiles are more than half full.
const MANY_COLUMNS: usize = 65;
/// The most products that are added to a weight at once.
const TERMS: usize = 64;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct LinearArguments {
    x: View,
    weight: View,
    bias: View,
    target: View,
    rows: u32,
    columns: u32,
    depth: u32,
    activation: u32,
    x_aligned: u32,
    weight_aligned: u32,
    target_aligned: u32,
    unused: u32,
}

/// How a kernel is launched, and what it loads at once.
struct Kernel {
    name: &'static str,
    /// Rows and columns of a block's tile.
    side: usize,
    threads: u32,
    shared_bytes: u32,
    /// Elements of an operand.
    loaded: u64,
}

impl Kernel {
    fn of(session: &Session<'_>, x: DType, weight: DType, rows: usize, columns: usize) -> Kernel {
        let many = rows >= MANY_ROWS && columns >= MANY_COLUMNS;
        let side = if many { LARGEST_SIDE } else { LARGEST_SIDE / 2 };
        let tensor = |large, small| Kernel {
            name: if many { large } else { small },
            side,
            threads: 128,
            shared_bytes: match (session.architecture() >= 800, many) {
                (true, _) => 48 << 10,
                (false, true) => 32 << 10,
                (false, false) => 16 << 10,
            },
            loaded: 8,
        };
        let has_tensor_cores = unit(session, x, weight) == Unit::Tensor;
        match x {
            DType::F16 if has_tensor_cores => tensor("linear_f16", "linear_f16_small"),
            DType::BF16 if has_tensor_cores => tensor("linear_bf16", "linear_bf16_small"),
            _ => Kernel {
                name: if many { "linear_f32" } else { "linear_f32_small" },
                side,
                threads: CHAIN_THREADS,
                shared_bytes: chain_shared_bytes(side),
                loaded: 4,
            },
        }
    }
}

const CHAIN_THREADS: u32 = 256;

/// `ChainShared` of a tile.
const fn chain_shared_bytes(side: usize) -> u32 {
    2 * 2 * 16 * (side as u32 + 4) * 4
}

pub(crate) fn linear(session: &Session<'_>, op: Linear<'_>, dst: &mut Tensor) {
    let (rows, depth, columns) = (op.x.rows(), op.x.columns(), op.weight.rows());
    assert_eq!(op.weight.columns(), depth, "{:?} times {:?}", op.x, op.weight);
    assert_eq!((dst.rows(), dst.columns()), (rows, columns), "{:?} times {:?}", op.x, op.weight);
    if let Some(bias) = op.bias {
        assert_eq!(bias.shape().elements(), columns, "{bias:?} for {:?}", op.weight);
    }
    if rows * columns == 0 {
        return;
    }
    let unit = unit(session, op.x.dtype(), op.weight.dtype());
    let at_once = rows_at_once(session, unit, rows, (columns * depth) as u64);
    for first in (0..rows).step_by(at_once) {
        let part = first..rows.min(first + at_once);
        let (x, dst) = (rows_of(op.x, part.clone()), rows_of(dst, part));
        some_rows(session, Linear { x: &x, ..op }, &dst, unit);
    }
}

/// What multiplies operands of these types.
fn unit(session: &Session<'_>, x: DType, weight: DType) -> Unit {
    match x == weight && session.has_tensor_cores_for(x) {
        true => Unit::Tensor,
        false => Unit::F32,
    }
}

/// How many rows one launch is for, each of so many multiply-adds: whole tiles, or all.
fn rows_at_once(session: &Session<'_>, unit: Unit, rows: usize, of_row: u64) -> usize {
    let tiles = rows.div_ceil(LARGEST_SIDE);
    session.parts(unit, of_row * LARGEST_SIDE as u64, tiles) * LARGEST_SIDE
}

/// Some rows of a tensor of any shape.
fn rows_of(tensor: &Tensor, range: Range<usize>) -> Tensor {
    tensor.reshape([tensor.rows(), tensor.columns()]).slice(range)
}

/// A product that one launch is for.
fn some_rows(session: &Session<'_>, op: Linear<'_>, dst: &Tensor, unit: Unit) {
    let (rows, depth, columns) = (op.x.rows(), op.x.columns(), op.weight.rows());
    if product(session, &op, dst).is_some_and(|product| session.product(&product)) {
        return;
    }
    let kernel = Kernel::of(session, op.x.dtype(), op.weight.dtype(), rows, columns);
    let (x, weight, target) = (session.view(op.x), session.view(op.weight), session.view(dst));
    let arguments = LinearArguments {
        x,
        weight,
        bias: session.view_if(op.bias),
        target,
        rows: size(rows),
        columns: size(columns),
        depth: size(depth),
        activation: match op.activation {
            Activation::None => 0,
            Activation::Silu => 1,
            Activation::GeluTanh => 2,
        },
        x_aligned: aligned(x, op.x, kernel.loaded),
        weight_aligned: aligned(weight, op.weight, kernel.loaded),
        target_aligned: aligned(target, dst, 4),
        unused: 0,
    };
    let touched: Vec<&Tensor> = [op.x, op.weight, dst].into_iter().chain(op.bias).collect();
    let grid = ([tiles(rows, columns, kernel.side), 1, 1], [kernel.threads, 1, 1]);
    let work = ((rows * columns * depth) as u64, unit);
    session.launch_work(kernel.name, grid, kernel.shared_bytes, &arguments, &touched, work);
}

/// The inner dimensions of large layers are multiples of this. With others a library may have ways of its
/// own that nobody has tried (`cuda/blas/proof.rs`).
const PRODUCT_DEPTH: usize = 64;

/// What a library could make: all of one type of 16 bits, and aligned.
///
/// For one layer of a model that is always so or never, however it is placed. Tensors begin at multiples
/// of 256 bytes. Parts of them are whole rows, and a row of x or of the weight has `depth` elements. A part
/// of the columns is that of some heads, whose length is a multiple of 16 elements; other layers' columns
/// are never parted.
fn product(session: &Session<'_>, op: &Linear<'_>, dst: &Tensor) -> Option<Product> {
    let dtype = op.x.dtype();
    let tensors = [Some(op.x), Some(op.weight), op.bias, Some(dst)];
    let address = |tensor: &Tensor| session.view(tensor).address;
    let suits = |tensor: &Tensor| {
        tensor.dtype() == dtype && address(tensor).is_multiple_of(PRODUCT_ALIGNMENT)
    };
    let (depth, columns) = (op.x.columns(), dst.columns());
    let is_made = dtype != DType::F32
        && depth != 0
        && depth.is_multiple_of(PRODUCT_DEPTH)
        && (columns as u64 * dtype.bytes()).is_multiple_of(PRODUCT_ALIGNMENT)
        && tensors.into_iter().flatten().all(suits);
    is_made.then(|| Product {
        dtype,
        x: address(op.x),
        weight: address(op.weight),
        bias: op.bias.map(address),
        target: address(dst),
        rows: dst.rows() as u64,
        columns: columns as u64,
        depth: depth as u64,
        activation: op.activation,
    })
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct LowRankTerm {
    a: View,
    b: View,
    rank: u32,
    factor: f32,
    a_aligned: u32,
    b_aligned: u32,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct LowRankArguments {
    weight: View,
    rows: u32,
    columns: u32,
    aligned: u32,
    terms: u32,
    term: [LowRankTerm; TERMS],
}

pub(crate) fn low_rank_add(session: &Session<'_>, terms: &[LowRank<'_>], weight: &mut Tensor) {
    let (rows, columns) = (weight.rows(), weight.columns());
    let ranks: usize = terms.iter().map(|term| term.a.rows()).sum();
    let at_once = rows_at_once(session, Unit::F32, rows, (columns * ranks) as u64);
    for first in (0..rows).step_by(at_once) {
        let part = first..rows.min(first + at_once);
        let of_part: Vec<Tensor> = terms.iter().map(|term| rows_of(term.b, part.clone())).collect();
        let terms = terms.iter().zip(&of_part);
        let terms: Vec<LowRank<'_>> = terms.map(|(term, b)| LowRank { b, ..*term }).collect();
        low_rank_add_to_rows(session, &terms, &rows_of(weight, part));
    }
}

fn low_rank_add_to_rows(session: &Session<'_>, terms: &[LowRank<'_>], weight: &Tensor) {
    const SIDE: usize = 64;
    let (rows, columns) = (weight.rows(), weight.columns());
    assert!(terms.len() <= TERMS, "{} products for {weight:?}, of {TERMS} at most", terms.len());
    let mut arguments = LowRankArguments {
        weight: session.view(weight),
        rows: size(rows),
        columns: size(columns),
        aligned: aligned(session.view(weight), weight, 4),
        terms: terms.len() as u32,
        term: bytemuck::Zeroable::zeroed(),
    };
    let mut touched = vec![weight];
    let mut ranks = 0;
    for (argument, term) in arguments.term.iter_mut().zip(terms) {
        let rank = term.a.rows();
        assert_eq!(term.a.columns(), columns, "{:?} for {weight:?}", term.a);
        assert_eq!((term.b.rows(), term.b.columns()), (rows, rank), "{:?} for {weight:?}", term.b);
        let (a, b) = (session.view(term.a), session.view(term.b));
        *argument = LowRankTerm {
            a,
            b,
            rank: size(rank),
            factor: term.factor,
            a_aligned: aligned(a, term.a, 4),
            b_aligned: aligned(b, term.b, 4),
        };
        touched.extend([term.a, term.b]);
        ranks += rank;
    }
    let grid = ([tiles(rows, columns, SIDE), 1, 1], [CHAIN_THREADS, 1, 1]);
    let work = ((rows * columns * ranks) as u64, Unit::F32);
    let shared_bytes = chain_shared_bytes(SIDE);
    session.launch_work("low_rank_add", grid, shared_bytes, &arguments, &touched, work);
}

/// Whether so many elements at once are aligned to their bytes wherever in a row they begin at a
/// multiple of that.
fn aligned(view: View, tensor: &Tensor, elements: u64) -> u32 {
    let in_rows = (tensor.columns() as u64).is_multiple_of(elements);
    u32::from(in_rows && view.address.is_multiple_of(elements * tensor.dtype().bytes()))
}

/// Square tiles that cover a result.
fn tiles(rows: usize, columns: usize, side: usize) -> u32 {
    let tiles = rows.div_ceil(side) as u64 * columns.div_ceil(side) as u64;
    u32::try_from(tiles).ok().filter(|&tiles| tiles < 1 << 31).expect("fewer tiles than a grid has")
}

fn size(elements: usize) -> u32 {
    u32::try_from(elements).ok().filter(|&size| size < 1 << 31).expect("a dimension below 2^31")
}
