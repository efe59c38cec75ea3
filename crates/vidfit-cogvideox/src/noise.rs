//! The random numbers of `torch.randn` with a CPU generator, bit for bit.
//!
//! [`Generator`] is PyTorch's `at::CPUGeneratorImpl`: a Mersenne Twister (mt19937) and one normal
//! value kept back by the scalar path. A tensor of 16 or more values is filled by a vectorised
//! Box-Muller transform in f32 (module `box_muller`), a smaller one by a scalar transform in f64;
//! the two share the twister, but only the scalar one reads or writes the kept value.
//!
//! Nothing here depends on the features of the CPU it runs on.

mod box_muller;
mod mt19937;

use std::f64::consts::PI;

use half::{bf16, f16};
use serde::{Deserialize, Serialize};

use box_muller::box_muller;
use mt19937::Mt19937;
pub use mt19937::WORDS;

/// Sizes from here on take the vectorised path.
const BLOCK: usize = 16;

/// A seeded source of normal values that repeats `torch.Generator(device="cpu").manual_seed(seed)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Generator {
    twister: Mt19937,
    kept_normal: Option<f64>,
}

/// A generator's whole state, for a run that is to be resumed. The default is no generator's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeneratorState {
    /// The words of the Mersenne Twister, `[624]`.
    pub words: Vec<u32>,
    /// How many of the words are used up, 0 to 624.
    pub used: usize,
    /// The bits of the f64 that the scalar path keeps for its next call.
    pub kept_normal_bits: Option<u64>,
}

/// A [`GeneratorState`] that no generator can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the saved state of the random generator is damaged: {words} words of 624, {used} used; start the run again"
)]
pub struct GeneratorStateError {
    words: usize,
    used: usize,
}

impl Generator {
    /// `manual_seed`. Only the low 32 bits count, as in PyTorch.
    pub fn seed(seed: u64) -> Self {
        Self { twister: Mt19937::seed(seed as u32), kept_normal: None }
    }

    /// The state, to be saved.
    pub fn state(&self) -> GeneratorState {
        GeneratorState {
            words: self.twister.words.to_vec(),
            used: self.twister.used,
            kept_normal_bits: self.kept_normal.map(f64::to_bits),
        }
    }

    /// The generator that [`Generator::state`] was called on.
    ///
    /// # Errors
    /// [`GeneratorStateError`] if there are not 624 words, or more are used than there are.
    pub fn from_state(state: &GeneratorState) -> Result<Self, GeneratorStateError> {
        let damaged = GeneratorStateError { words: state.words.len(), used: state.used };
        match <[u32; mt19937::WORDS]>::try_from(state.words.as_slice()) {
            Ok(words) if state.used <= mt19937::WORDS => Ok(Self {
                twister: Mt19937 { words, used: state.used },
                kept_normal: state.kept_normal_bits.map(f64::from_bits),
            }),
            _ => Err(damaged),
        }
    }

    /// `torch.randn(values.len(), dtype=torch.float32)`.
    pub fn fill_normal_f32(&mut self, values: &mut [f32]) {
        if values.len() < BLOCK {
            values.fill_with(|| self.scalar_normal() as f32);
            return;
        }
        let tail = {
            let (blocks, rest) = values.as_chunks_mut::<BLOCK>();
            for block in blocks {
                self.fill_block(block);
            }
            rest.len()
        };
        if tail > 0 {
            // PyTorch has drawn the uniforms of the whole tensor by now, then draws the last 16
            // values afresh.
            self.twister.skip(tail);
            if let Some(last) = values.last_chunk_mut::<BLOCK>() {
                self.fill_block(last);
            }
        }
    }

    /// `torch.randn(values.len(), dtype=torch.bfloat16)`: the f32 values rounded, except that the
    /// last 16 of a length that is no multiple of 16 come from other uniforms (see
    /// [`Generator::skip_normal`]).
    pub fn fill_normal_bf16(&mut self, values: &mut [bf16]) {
        self.fill_rounded(values, bf16::from_f32);
    }

    /// `torch.randn(values.len(), dtype=torch.float16)`; see [`Generator::fill_normal_bf16`].
    pub fn fill_normal_f16(&mut self, values: &mut [f16]) {
        self.fill_rounded(values, f16::from_f32);
    }

    /// Moves on as if `len` values had been drawn, without computing them; `half` says whether as
    /// bf16 or f16.
    ///
    /// For lengths of 16 and more that are no multiple of 16, f32 uses up `len + 16` words of the
    /// twister, the half types only `len` rounded up to 16. Otherwise they agree.
    pub fn skip_normal(&mut self, len: usize, half: bool) {
        match (len, len % BLOCK) {
            (0..BLOCK, _) => (0..len).for_each(|_| {
                self.scalar_normal();
            }),
            (_, 0) => self.twister.skip(len),
            (_, _) if half => self.twister.skip(len.next_multiple_of(BLOCK)),
            _ => self.twister.skip(len + BLOCK),
        }
    }

    fn fill_rounded<T>(&mut self, values: &mut [T], round: impl Fn(f32) -> T) {
        if values.len() < BLOCK {
            values.fill_with(|| round(self.scalar_normal() as f32));
            return;
        }
        let mut normals = [0.0; BLOCK];
        let len = values.len();
        let starts = (0..len / BLOCK).map(|block| block * BLOCK);
        for start in starts.chain((!len.is_multiple_of(BLOCK)).then(|| len - BLOCK)) {
            self.fill_block(&mut normals);
            for (value, &normal) in values[start..].iter_mut().zip(&normals) {
                *value = round(normal);
            }
        }
    }

    fn fill_block(&mut self, block: &mut [f32; BLOCK]) {
        for value in block.iter_mut() {
            // The 24 bits of an f32 mantissa: [0, 1).
            *value = (self.twister.next() & 0x00ff_ffff) as f32 * (1.0 / 16_777_216.0);
        }
        box_muller(block);
    }

    /// One value of `at::normal_distribution<double>`: Box-Muller gives two, the second waits for
    /// the next call.
    fn scalar_normal(&mut self) -> f64 {
        if let Some(kept) = self.kept_normal.take() {
            return kept;
        }
        let angle = 2.0 * PI * self.uniform_f64();
        let radius = (-2.0 * (-self.uniform_f64()).ln_1p()).sqrt();
        self.kept_normal = Some(radius * angle.sin());
        radius * angle.cos()
    }

    /// 53 bits of two words, the first one high: [0, 1).
    fn uniform_f64(&mut self) -> f64 {
        let bits = u64::from(self.twister.next()) << 32 | u64::from(self.twister.next());
        (bits & ((1 << 53) - 1)) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(generator: &mut Generator, len: usize) -> Vec<f32> {
        let mut values = vec![0.0; len];
        generator.fill_normal_f32(&mut values);
        values
    }

    // Printed by torch 2.15: torch.randn(n, generator=torch.Generator().manual_seed(7)) in the
    // order given.
    const FOUR: [f32; 4] = [-0.146_795_1, 0.786_141_3, 0.946_821_63, -1.114344];
    const SIXTEEN_AFTER_FOUR: [f32; 16] = [
        -0.17643793,
        1.7501724,
        1.9300169,
        0.986_111_8,
        0.609_473_47,
        -0.581_133_8,
        0.049043868,
        -0.32047692,
        -0.9370839,
        0.86493945,
        -0.36918038,
        0.792_943_66,
        -0.551_940_5,
        0.35274902,
        -1.0842019,
        -0.887_490_1,
    ];

    #[test]
    fn a_long_draw_has_pytorchs_bits() {
        // r.view(uint32) weighted with 1, 2, 3, … and summed modulo 2^64; torch 2.15 with AVX2 or
        // AVX-512.
        let sum = draw(&mut Generator::seed(42), 65_541)
            .iter()
            .zip(1_u64..)
            .fold(0_u64, |sum, (value, i)| {
                sum.wrapping_add(i.wrapping_mul(value.to_bits().into()))
            });
        assert_eq!(sum, 4_586_225_346_573_049_788);
    }

    #[test]
    fn small_sizes_share_the_kept_value() {
        let mut generator = Generator::seed(7);
        assert_eq!(
            [draw(&mut generator, 1), draw(&mut generator, 1), draw(&mut generator, 1)].concat(),
            FOUR[..3]
        );
        let mut generator = Generator::seed(7);
        assert_eq!(draw(&mut generator, 3), FOUR[..3]);
        // The vectorised path leaves the kept value alone.
        assert_eq!(draw(&mut generator, 16), SIXTEEN_AFTER_FOUR);
        assert_eq!(draw(&mut generator, 1), FOUR[3..]);
        assert_eq!(draw(&mut generator, 1), [0.137_324_1]);
    }

    #[test]
    fn seeds_count_modulo_two_to_the_32() {
        assert_eq!(Generator::seed(7), Generator::seed(7 + (1 << 32)));
        assert_eq!(draw(&mut Generator::seed(u64::MAX), 2), [1.219_763, -0.39297947]);
    }

    #[test]
    fn a_saved_state_goes_on_with_the_same_numbers() {
        let mut generator = Generator::seed(3);
        draw(&mut generator, 1000);
        draw(&mut generator, 3);
        let saved = serde_json::to_string(&generator.state()).unwrap();
        let mut resumed = Generator::from_state(&serde_json::from_str(&saved).unwrap()).unwrap();
        assert_eq!(resumed, generator);
        assert_eq!(draw(&mut resumed, 1), draw(&mut generator, 1));
        assert_eq!(draw(&mut resumed, 5000), draw(&mut generator, 5000));
    }

    #[test]
    fn a_damaged_state_is_an_error() {
        let state = Generator::seed(0).state();
        let short = GeneratorState { words: vec![0; 623], ..state.clone() };
        let past = GeneratorState { used: 625, ..state };
        assert!(Generator::from_state(&short).unwrap_err().to_string().contains("623"));
        assert!(Generator::from_state(&past).unwrap_err().to_string().contains("625"));
    }

    #[test]
    fn halves_are_the_rounded_values_for_whole_blocks_and_small_sizes() {
        for len in [1, 3, 15, 16, 32, 160] {
            let (mut a, mut b, mut c) =
                (Generator::seed(9), Generator::seed(9), Generator::seed(9));
            let (mut brain, mut ieee) = (vec![bf16::ZERO; len], vec![f16::ZERO; len]);
            a.fill_normal_bf16(&mut brain);
            b.fill_normal_f16(&mut ieee);
            let full = draw(&mut c, len);
            assert!(brain.iter().zip(&full).all(|(&half, &full)| half == bf16::from_f32(full)));
            assert!(ieee.iter().zip(&full).all(|(&half, &full)| half == f16::from_f32(full)));
            assert!(a == c && b == c);
        }
    }

    #[test]
    fn ragged_tails_differ_between_full_and_half() {
        // Measured: full precision skips the uniforms of the tail before it redraws 16, the half
        // types do not.
        for len in [17, 20, 33, 100, 1003] {
            let whole = len / 16 * 16;
            let mut expected = draw(&mut Generator::seed(5), whole + 16);
            expected.drain(len - 16..whole);
            let mut generator = Generator::seed(5);
            let mut brain = vec![bf16::ZERO; len];
            generator.fill_normal_bf16(&mut brain);
            assert!(
                brain.iter().zip(&expected).all(|(&half, &full)| half == bf16::from_f32(full)),
                "{len}"
            );
            let mut skipped = Generator::seed(5);
            skipped.skip_normal(len, true);
            assert_eq!(skipped, generator);
        }
    }

    #[test]
    fn skipping_is_drawing_without_looking() {
        for len in [0, 1, 4, 15, 16, 17, 31, 640, 5000, 12345] {
            let (mut drawn, mut skipped) = (Generator::seed(11), Generator::seed(11));
            draw(&mut drawn, len);
            skipped.skip_normal(len, false);
            // The twister renews its words when it needs them, so compare what comes out.
            assert_eq!(draw(&mut drawn, 40), draw(&mut skipped, 40), "{len}");
            assert_eq!(drawn, skipped, "{len}");
        }
    }

    #[test]
    fn mean_and_spread_are_those_of_a_standard_normal() {
        let values = draw(&mut Generator::seed(1), 1 << 20);
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
        let square =
            values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 4e-3 && (square - 1.0).abs() < 6e-3, "{mean} {square}");
    }
}
