//! Values to compute with where nobody looks at the result.

/// Values between -1.7 and 1.7 with a variance of 1, always the same for a `seed`.
pub fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed + 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next() * 1.732).collect()
}
