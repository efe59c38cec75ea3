//! ᾱ per trained timestep: how much of the signal is left in the noised latents.

use super::SchedulerConfig;

/// ᾱ of every trained timestep, f64.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseTable {
    /// ᾱ_t, `[num_train_timesteps]`, falling; 0 at the end if rescaled to zero signal.
    pub alphas_cumprod: Vec<f64>,
    /// ᾱ of the step past the clean end (a previous timestep below 0): 1 with `set_alpha_to_one`.
    pub final_alpha_cumprod: f64,
}

/// The two scalars of `x = sqrt_alpha · z + sqrt_one_minus_alpha · noise`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AddNoise {
    /// √ᾱ_t.
    pub sqrt_alpha: f32,
    /// √(1 − ᾱ_t).
    pub sqrt_one_minus_alpha: f32,
}

impl NoiseTable {
    /// β = linspace(√beta_start, √beta_end)², ᾱ = ∏(1 − β); then the shift, then the rescaling to
    /// zero signal.
    pub fn new(config: &SchedulerConfig) -> Self {
        let count = config.num_train_timesteps;
        let (start, end) = (config.beta_start.sqrt(), config.beta_end.sqrt());
        // torch.linspace counts the second half down from the end.
        let spacing = (end - start) / (count - 1) as f64;
        let root_of_beta = |i: usize| match i < count / 2 {
            true => start + spacing * i as f64,
            false => end - spacing * (count - 1 - i) as f64,
        };
        let shift = config.snr_shift_scale;
        let mut product = 1.0;
        let mut alphas_cumprod: Vec<f64> = (0..count)
            .map(|i| {
                product *= 1.0 - root_of_beta(i).powi(2);
                product / (shift + (1.0 - shift) * product)
            })
            .collect();
        if config.rescale_betas_zero_snr {
            rescale_zero_terminal_snr(&mut alphas_cumprod);
        }
        let final_alpha_cumprod = if config.set_alpha_to_one { 1.0 } else { alphas_cumprod[0] };
        Self { alphas_cumprod, final_alpha_cumprod }
    }

    /// ᾱ at a timestep; below 0 that of the clean end.
    ///
    /// # Panics
    /// If the timestep is past the table's end; [`SchedulerConfig::timesteps`] returns none such.
    pub fn alpha(&self, timestep: i64) -> f64 {
        usize::try_from(timestep).map_or(self.final_alpha_cumprod, |t| self.alphas_cumprod[t])
    }

    /// The scalars that noise clean latents to `timestep` (video-to-video), in f32 arithmetic as
    /// the reference does it for f32 latents.
    ///
    /// # Panics
    /// If the timestep is past the table's end.
    pub fn add_noise(&self, timestep: i64) -> AddNoise {
        let alpha = self.alpha(timestep) as f32;
        AddNoise { sqrt_alpha: alpha.sqrt(), sqrt_one_minus_alpha: (1.0 - alpha).sqrt() }
    }
}

/// Shifts and scales √ᾱ so that the last is 0 and the first stays (arXiv 2305.08891, algorithm 1).
fn rescale_zero_terminal_snr(alphas_cumprod: &mut [f64]) {
    let (Some(first), Some(last)) = (alphas_cumprod.first(), alphas_cumprod.last()) else {
        return;
    };
    let (first, last) = (first.sqrt(), last.sqrt());
    let scale = first / (first - last);
    for alpha in alphas_cumprod {
        *alpha = ((alpha.sqrt() - last) * scale).powi(2);
    }
}

#[cfg(test)]
mod tests {
    use super::super::SchedulerKind;
    use super::super::config::published;
    use super::*;

    fn table(snr_shift_scale: f64) -> NoiseTable {
        NoiseTable::new(&published(SchedulerKind::Ddim, snr_shift_scale))
    }

    #[test]
    fn values_of_both_shifts() {
        for (shift, expected) in [
            (
                1.0,
                [
                    0.99915,
                    0.981010456929,
                    0.888085894794,
                    0.242359166556,
                    8.57878434e-5,
                    1.96788806e-7,
                ],
            ),
            (
                3.0,
                [
                    0.997454327643,
                    0.946572979238,
                    0.730866866759,
                    0.0959695616907,
                    2.71943604e-5,
                    6.23078847e-8,
                ],
            ),
        ] {
            let table = table(shift);
            for (t, expected) in [0, 19, 99, 499, 979, 998].into_iter().zip(expected) {
                let got = table.alpha(t);
                assert!(
                    (got / expected - 1.0).abs() < 3e-9,
                    "shift {shift}, t {t}: {got} {expected}"
                );
            }
            assert_eq!(table.alpha(999), 0.0);
            assert_eq!(table.alpha(-1), 1.0);
            assert!(table.alphas_cumprod.windows(2).all(|pair| pair[0] > pair[1]));
        }
    }

    #[test]
    fn the_shift_comes_before_the_rescaling() {
        // Shifting after rescaling leaves ᾱ_0 at 0.99915 / (3 - 2·0.99915) as well, but moves the
        // middle.
        let rescaled = table(1.0).alpha(499);
        assert!((table(3.0).alpha(499) - rescaled / (3.0 - 2.0 * rescaled)).abs() > 1e-4);
    }

    #[test]
    fn noising_keeps_the_variance() {
        let AddNoise { sqrt_alpha, sqrt_one_minus_alpha } = table(1.0).add_noise(799);
        assert!((sqrt_alpha.powi(2) + sqrt_one_minus_alpha.powi(2) - 1.0).abs() < 1e-6);
        assert_eq!(table(1.0).add_noise(999).sqrt_one_minus_alpha, 1.0);
    }
}
