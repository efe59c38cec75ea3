//! The micro-kernel under every product: a few rows of A times one panel of B.
//!
//! Each element of the result is one chain of fused multiply-adds in the order of the inner
//! dimension, begun at zero or at the value a call before left behind. So neither the blocking of
//! any dimension nor the width of the registers changes a bit.

use super::isa::Isa;

/// Columns of a panel of B: `[depth][PANEL]`, filled up with zeros.
pub(crate) const PANEL: usize = 32;

/// Rows that every kernel takes without a remainder, and the widest one at once: 12 rows of 2
/// AVX-512 registers leave 8 of the 32 registers for operands.
pub(crate) const TILE: usize = 12;

/// Rows of the kernels with half a panel's width: 6 rows of 2 AVX2 registers leave 4 of the 16.
const ROWS_256: usize = 6;

/// `C (+)= A · B` for one panel of B.
pub(crate) struct PanelProduct<'a> {
    /// Rows of A and C.
    pub rows: usize,
    /// Columns of A, rows of B.
    pub depth: usize,
    /// Row `i` starts at `i · a_stride`; rows may overlap.
    pub a: &'a [f32],
    pub a_stride: usize,
    /// `[depth][PANEL]`.
    pub b: &'a [f32],
    /// Row `i` starts at `i · c_stride` and has `PANEL` elements.
    pub c: &'a mut [f32],
    pub c_stride: usize,
    /// Whether the chains go on from what C holds, instead of from zero.
    pub resume: bool,
}

impl PanelProduct<'_> {
    /// Computes the product.
    pub fn run(self, isa: Isa) {
        if self.rows == 0 {
            return;
        }
        assert!(self.a.len() >= (self.rows - 1) * self.a_stride + self.depth);
        assert!(self.b.len() >= self.depth * PANEL);
        assert!(self.c.len() >= (self.rows - 1) * self.c_stride + PANEL);
        let tile = Tile {
            depth: self.depth,
            a: self.a.as_ptr(),
            a_stride: self.a_stride,
            b: self.b.as_ptr(),
            c: self.c.as_mut_ptr(),
            c_stride: self.c_stride,
            resume: self.resume,
        };
        // SAFETY: the operands are as large as the kernels need by the assertions; an `Isa` other
        // than the portable one exists only where its instructions do.
        unsafe {
            match isa.level() {
                #[cfg(target_arch = "x86_64")]
                super::isa::Level::Avx512 => x86::rows_512(self.rows, &tile),
                #[cfg(target_arch = "x86_64")]
                super::isa::Level::Avx2 => x86::rows_256(self.rows, &tile),
                super::isa::Level::Portable => rows_narrow::<Lanes>(self.rows, &tile),
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Tile {
    depth: usize,
    a: *const f32,
    a_stride: usize,
    b: *const f32,
    c: *mut f32,
    c_stride: usize,
    resume: bool,
}

/// A register of f32.
trait Vector: Copy {
    const LANES: usize;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// `a · b + self`, rounded once.
    unsafe fn plus_product(self, a: Self, b: Self) -> Self;
}

/// Splits `rows` into tiles of at most `most`, as even as can be: a last tile of one or two rows
/// would not keep the multipliers busy.
#[inline(always)]
fn for_each_tile(rows: usize, most: usize, mut body: impl FnMut(usize, usize)) {
    let tiles = rows.div_ceil(most);
    let (base, longer) = (rows / tiles, rows % tiles);
    let mut first = 0;
    for tile in 0..tiles {
        let count = base + usize::from(tile < longer);
        body(first, count);
        first += count;
    }
}

/// `ROWS` rows times `2 · LANES` columns.
#[inline(always)]
unsafe fn tile<V: Vector, const ROWS: usize>(t: &Tile) {
    // SAFETY: the caller vouches for the operands' sizes.
    unsafe {
        let mut sums = [[V::splat(0.0); 2]; ROWS];
        if t.resume {
            for (i, sums) in sums.iter_mut().enumerate() {
                let c = t.c.add(i * t.c_stride);
                *sums = [V::load(c), V::load(c.add(V::LANES))];
            }
        }
        let (mut a, mut b) = (t.a, t.b);
        for _ in 0..t.depth {
            let b0 = V::load(b);
            let b1 = V::load(b.add(V::LANES));
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = V::splat(*a.add(i * t.a_stride));
                sums[0] = sums[0].plus_product(a, b0);
                sums[1] = sums[1].plus_product(a, b1);
            }
            a = a.add(1);
            b = b.add(PANEL);
        }
        for (i, sums) in sums.iter().enumerate() {
            let c = t.c.add(i * t.c_stride);
            sums[0].store(c);
            sums[1].store(c.add(V::LANES));
        }
    }
}

/// Any rows, with kernels of half a panel's width.
#[inline(always)]
unsafe fn rows_narrow<V: Vector>(rows: usize, t: &Tile) {
    const { assert!(V::LANES * 4 == PANEL) };
    for_each_tile(rows, ROWS_256, |first, count| {
        for column in [0, PANEL / 2] {
            // SAFETY: rows and columns are inside the product's.
            unsafe {
                let t = Tile {
                    a: t.a.add(first * t.a_stride),
                    b: t.b.add(column),
                    c: t.c.add(first * t.c_stride + column),
                    ..*t
                };
                match count {
                    1 => tile::<V, 1>(&t),
                    2 => tile::<V, 2>(&t),
                    3 => tile::<V, 3>(&t),
                    4 => tile::<V, 4>(&t),
                    5 => tile::<V, 5>(&t),
                    6 => tile::<V, 6>(&t),
                    _ => unreachable!(),
                }
            }
        }
    });
}

/// Eight f32 in whatever registers there are.
#[derive(Clone, Copy)]
struct Lanes([f32; 8]);

impl Vector for Lanes {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Lanes([value; 8])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for eight elements.
        Lanes(unsafe { from.cast::<[f32; 8]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for eight elements.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn plus_product(mut self, a: Self, b: Self) -> Self {
        for lane in 0..8 {
            self.0[lane] = a.0[lane].mul_add(b.0[lane], self.0[lane]);
        }
        self
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{TILE, Tile, Vector, for_each_tile, rows_narrow, tile};
    use std::arch::x86_64::*;

    impl Vector for __m512 {
        const LANES: usize = 16;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: used only where AVX-512 is.
            unsafe { _mm512_set1_ps(value) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: as above, and the caller vouches for sixteen elements.
            unsafe { _mm512_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: as above.
            unsafe { _mm512_storeu_ps(to, self) }
        }

        #[inline(always)]
        unsafe fn plus_product(self, a: Self, b: Self) -> Self {
            // SAFETY: used only where AVX-512 is.
            unsafe { _mm512_fmadd_ps(a, b, self) }
        }
    }

    impl Vector for __m256 {
        const LANES: usize = 8;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: used only where AVX2 and FMA are.
            unsafe { _mm256_set1_ps(value) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: as above, and the caller vouches for eight elements.
            unsafe { _mm256_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: as above.
            unsafe { _mm256_storeu_ps(to, self) }
        }

        #[inline(always)]
        unsafe fn plus_product(self, a: Self, b: Self) -> Self {
            // SAFETY: used only where AVX2 and FMA are.
            unsafe { _mm256_fmadd_ps(a, b, self) }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn rows_256(rows: usize, t: &Tile) {
        // SAFETY: by the caller's contract.
        unsafe { rows_narrow::<__m256>(rows, t) }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn tile_512<const ROWS: usize>(t: &Tile) {
        // SAFETY: by the caller's contract.
        unsafe { tile::<__m512, ROWS>(t) }
    }

    pub(super) unsafe fn rows_512(rows: usize, t: &Tile) {
        for_each_tile(rows, TILE, |first, count| {
            // SAFETY: the rows are inside the product's, and the caller vouches for AVX-512.
            unsafe {
                let t =
                    &Tile { a: t.a.add(first * t.a_stride), c: t.c.add(first * t.c_stride), ..*t };
                match count {
                    1 => tile_512::<1>(t),
                    2 => tile_512::<2>(t),
                    3 => tile_512::<3>(t),
                    4 => tile_512::<4>(t),
                    5 => tile_512::<5>(t),
                    6 => tile_512::<6>(t),
                    7 => tile_512::<7>(t),
                    8 => tile_512::<8>(t),
                    9 => tile_512::<9>(t),
                    10 => tile_512::<10>(t),
                    11 => tile_512::<11>(t),
                    12 => tile_512::<12>(t),
                    _ => unreachable!(),
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_instruction_set_gives_the_chain(
            rows in 1usize..40, depth in 0usize..70, extra in 0usize..9, resume: bool, seed: u32,
        ) {
            let mut state = seed;
            let mut random = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            };
            let (a_stride, c_stride) = (depth + extra, PANEL + extra);
            let a: Vec<f32> = (0..rows * a_stride + depth).map(|_| random()).collect();
            let b: Vec<f32> = (0..depth * PANEL).map(|_| random()).collect();
            let before: Vec<f32> = (0..rows * c_stride + PANEL).map(|_| random()).collect();
            let mut expected = before.clone();
            for i in 0..rows {
                for j in 0..PANEL {
                    let c = &mut expected[i * c_stride + j];
                    let mut sum = if resume { *c } else { 0.0 };
                    for k in 0..depth {
                        sum = a[i * a_stride + k].mul_add(b[k * PANEL + j], sum);
                    }
                    *c = sum;
                }
            }
            for isa in Isa::all() {
                let mut c = before.clone();
                PanelProduct { rows, depth, a: &a, a_stride, b: &b, c: &mut c, c_stride, resume }
                    .run(isa);
                prop_assert!(c == expected, "{isa:?}");
            }
        }
    }
}
