//! Whether an algorithm makes right products, and the same bits whatever else it makes with them.
//!
//! The rows of x, and those of the weight, are a few that are repeated, so that in any part of their
//! product every element is one of a small table, and must have its bits. In every other column of it the
//! second half of the products cancels the first. What is left is what the sums have been rounded by, and
//! that is another number if they are made in any other order.

use super::{Epilogue, Kind, Obstacle};
use crate::driver::{Driver, Product};
use half::{bf16, f16};
use std::ops::Range;
use vidfit_tensor::{Activation, DType};

/// The inner dimension: long enough to be worth splitting.
const DEPTH: usize = 512;
/// Columns: whole tiles of any size, and a part of one.
const COLUMNS: usize = 640;
/// Rows for each multiprocessor: the largest tiles are then more than run at once, and some run last.
const ROWS_EACH: usize = 64;
const ROWS_MORE: usize = 97;
/// Different rows of either operand: primes, so that they come to lie everywhere in tiles.
const DIFFERENT_ROWS: usize = 61;
const DIFFERENT_COLUMNS: usize = 131;

/// Bytes of an element.
const BYTES: usize = 2;

/// What products are tried with, in memory of the card.
pub(super) struct Proof<'a> {
    driver: &'a dyn Driver,
    rows: usize,
    /// Where x, the weight, the bias and the target lie.
    x: u64,
    weight: u64,
    bias: u64,
    target: u64,
    operands: Option<Operands>,
}

/// The different rows of both operands, as a type holds them.
struct Operands {
    dtype: DType,
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

/// A part of the product.
#[derive(Clone)]
struct Part {
    rows: Range<usize>,
    columns: Range<usize>,
}

impl<'a> Proof<'a> {
    /// Takes memory of the card, some 20 MB of a large one, until it is dropped.
    pub fn new(driver: &'a dyn Driver, multiprocessors: u32) -> Result<Proof<'a>, Obstacle> {
        let rows = ROWS_EACH * multiprocessors as usize + ROWS_MORE;
        // Each a multiple of 256, so that the next begins at one.
        let [x, weight, bias] =
            [rows * DEPTH, COLUMNS * DEPTH, COLUMNS].map(|n| (n * BYTES) as u64);
        let target = (rows * COLUMNS * BYTES) as u64;
        let first = driver.allocate(x + weight + bias + target).map_err(Obstacle::Card)?;
        Ok(Proof {
            driver,
            rows,
            x: first,
            weight: first + x,
            bias: first + x + weight,
            target: first + x + weight + bias,
            operands: None,
        })
    }

    /// The address of a bias that is aligned no better than any may be.
    pub fn bias(&self) -> u64 {
        self.bias + crate::driver::PRODUCT_ALIGNMENT
    }

    /// Tries products that `make` asks for.
    pub fn prove(
        &mut self,
        kind: Kind,
        make: impl Fn(&Product) -> Result<(), String>,
    ) -> Result<(), Obstacle> {
        self.lay_out(kind.dtype).map_err(Obstacle::Card)?;
        let whole = Part { rows: 0..self.rows, columns: 0..COLUMNS };
        let made = self.made(kind, &whole, &make)?;
        let table = Table::of(&made);
        if let Some(operands) = &self.operands {
            operands.check(kind, &table).map_err(Obstacle::Library)?;
        }
        table.check(&whole, &made).map_err(Obstacle::Library)?;
        for part in self.parts() {
            let made = self.made(kind, &part, &make)?;
            table.check(&part, &made).map_err(Obstacle::Library)?;
        }
        Ok(())
    }

    /// Few rows and many, from the beginning and from elsewhere; the same of columns, as groups of heads
    /// have them.
    fn parts(&self) -> [Part; 8] {
        let (all, rows) = (0..COLUMNS, self.rows);
        let part =
            |rows: Range<usize>, columns: &Range<usize>| Part { rows, columns: columns.clone() };
        [
            part(0..1, &all),
            part(rows - 1..rows, &all),
            part(5..rows.min(231), &all),
            part(3..rows / 3, &all),
            part(0..rows, &(128..448)),
            part(0..rows, &(64..128)),
            part(7..rows / 2, &(632..640)),
            part(2..3, &(8..72)),
        ]
    }

    /// Writes operands of a type to the card.
    fn lay_out(&mut self, dtype: DType) -> Result<(), String> {
        if self.operands.as_ref().is_some_and(|operands| operands.dtype == dtype) {
            return Ok(());
        }
        let operands = Operands::new(dtype);
        for (address, rows, length, different) in [
            (self.x, self.rows, DEPTH, &operands.x),
            (self.weight, COLUMNS, DEPTH, &operands.weight),
            (self.bias, COLUMNS, 1, &operands.bias),
        ] {
            let bytes: Vec<u8> =
                different.iter().flat_map(|&value| stored(dtype, value).to_ne_bytes()).collect();
            let repeated: Vec<u8> = bytes.into_iter().cycle().take(rows * length * BYTES).collect();
            self.driver.write(address, &repeated)?;
        }
        self.operands = Some(operands);
        Ok(())
    }

    /// The bits of a part of the product, made by itself.
    fn made(
        &self,
        kind: Kind,
        part: &Part,
        make: impl Fn(&Product) -> Result<(), String>,
    ) -> Result<Vec<u16>, Obstacle> {
        let mut bytes = vec![0; part.rows.len() * part.columns.len() * BYTES];
        // Not a number, where nothing is written.
        self.driver.fill(self.target, bytes.len() as u64, 0xff).map_err(Obstacle::Card)?;
        let skipped = |count: usize| (count * BYTES) as u64;
        let product = Product {
            dtype: kind.dtype,
            x: self.x + skipped(part.rows.start * DEPTH),
            weight: self.weight + skipped(part.columns.start * DEPTH),
            bias: kind.has_bias().then(|| self.bias + skipped(part.columns.start)),
            target: self.target,
            rows: part.rows.len() as u64,
            columns: part.columns.len() as u64,
            depth: DEPTH as u64,
            activation: match kind.epilogue {
                Epilogue::BiasAndGelu => Activation::GeluTanh,
                _ => Activation::None,
            },
        };
        make(&product).map_err(Obstacle::Library)?;
        self.driver.read(self.target, &mut bytes).map_err(Obstacle::Card)?;
        Ok(bytes.chunks_exact(BYTES).map(|two| u16::from_ne_bytes([two[0], two[1]])).collect())
    }
}

impl Drop for Proof<'_> {
    fn drop(&mut self) {
        // What failed has been said.
        let _ = self.driver.finish();
        self.driver.free(self.x);
    }
}

/// The bits that each row has in all columns; rows repeat.
struct Table(Vec<u16>);

impl Table {
    fn of(whole: &[u16]) -> Table {
        let row = |row: usize| {
            let different = &whole[row * COLUMNS..][..DIFFERENT_COLUMNS];
            different.iter().copied().cycle().take(COLUMNS)
        };
        Table((0..DIFFERENT_ROWS).flat_map(row).collect())
    }

    fn check(&self, part: &Part, made: &[u16]) -> Result<(), String> {
        let rows = part.rows.clone().zip(made.chunks_exact(part.columns.len()));
        let is_same = |(row, made): (usize, &[u16])| {
            self.0[row % DIFFERENT_ROWS * COLUMNS..][part.columns.clone()] == *made
        };
        match rows.into_iter().all(is_same) {
            true => Ok(()),
            false => Err("bits depend on what else is computed".into()),
        }
    }
}

impl Operands {
    fn new(dtype: DType) -> Operands {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        // xorshift64, from -1 to 1, as the type holds it.
        let mut random = |scale: f32| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            dtype.round(scale * ((state >> 40) as f32 / (1 << 23) as f32 - 1.0))
        };
        let mut x = Vec::with_capacity(DIFFERENT_ROWS * DEPTH);
        for _ in 0..DIFFERENT_ROWS {
            let half: Vec<f32> = (0..DEPTH / 2).map(|_| random(1.0)).collect();
            x.extend(half.iter().chain(&half));
        }
        let (mut weight, mut bias) = (Vec::with_capacity(DIFFERENT_COLUMNS * DEPTH), Vec::new());
        for column in 0..DIFFERENT_COLUMNS {
            if cancels(column) {
                // Partial sums pass 500, whose last place in f32 is 2^-15.
                let half: Vec<f32> = (0..DEPTH / 2).map(|_| random(128.0)).collect();
                weight.extend(half.iter().copied().chain(half.iter().map(|value| -value)));
                bias.push(random(1.0 / 4096.0));
            } else {
                // Sums are some ±4, where GELU bends.
                weight.extend((0..DEPTH).map(|_| random(0.25)));
                bias.push(random(1.0));
            }
        }
        Operands { dtype, x, weight, bias }
    }

    /// Holds what does not cancel against sums in f64. What the library does wrong it does by far: it
    /// need not be exact, and its GELU is not.
    fn check(&self, kind: Kind, table: &Table) -> Result<(), String> {
        let (relative, absolute) = (1.0 / 64.0, 1.0 / 256.0);
        for row in 0..DIFFERENT_ROWS {
            for column in (0..DIFFERENT_COLUMNS).filter(|&column| !cancels(column)) {
                let x = &self.x[row * DEPTH..][..DEPTH];
                let weight = &self.weight[column * DEPTH..][..DEPTH];
                let products = x.iter().zip(weight).map(|(&x, &w)| f64::from(x) * f64::from(w));
                let sum: f64 = products.sum();
                let biased = sum + f64::from(self.bias[column]);
                let right = match kind.epilogue {
                    Epilogue::Nothing => sum,
                    Epilogue::Bias => biased,
                    Epilogue::BiasAndGelu => gelu_tanh(biased),
                };
                let made = value(self.dtype, table.0[row * COLUMNS + column]);
                let is_right = (made - right).abs() <= right.abs() * relative + absolute;
                if !is_right {
                    return Err(format!("a product is {made} instead of {right}"));
                }
            }
        }
        Ok(())
    }
}

/// Whether the products of a column cancel.
fn cancels(column: usize) -> bool {
    column % 2 == 1
}

/// Hendrycks and Gimpel 2016, section 2.
fn gelu_tanh(x: f64) -> f64 {
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
    0.5 * x * (1.0 + inner.tanh())
}

fn stored(dtype: DType, value: f32) -> u16 {
    match dtype {
        DType::BF16 => bf16::from_f32(value).to_bits(),
        _ => f16::from_f32(value).to_bits(),
    }
}

fn value(dtype: DType, bits: u16) -> f64 {
    match dtype {
        DType::BF16 => bf16::from_bits(bits).to_f64(),
        _ => f16::from_bits(bits).to_f64(),
    }
}
