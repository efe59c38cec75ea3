//! One denoising step as scalars.

use super::{NoiseTable, SchedulerConfig, SchedulerError, SchedulerKind, TimestepRule};

/// What one denoising step needs to know.
///
/// With `x` the latents and `v` the guided network output (f32):
/// `x0 = sqrt_alpha · x − sqrt_beta · v`, then the [`Update`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Position in the list of steps that are done, from 0.
    pub index: usize,
    /// The timestep the network is told.
    pub timestep: i64,
    /// Where the update goes, by the [`TimestepRule`]. Below 0 is the clean end.
    pub prev_timestep: i64,
    /// √ᾱ_t.
    pub sqrt_alpha: f64,
    /// √(1 − ᾱ_t).
    pub sqrt_beta: f64,
    /// How `x` and `x0` make the next latents.
    pub update: Update,
}

/// The update rule of a step with its scalars. All are finite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Update {
    /// DDIM.
    Ddim(DdimStep),
    /// DPM-Solver++ (SDE, 2M).
    Dpm(DpmStep),
}

/// `x' = a · x + b · x0`; no noise is drawn (the reference ignores η).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DdimStep {
    /// √((1 − ᾱ_p) / (1 − ᾱ_t)).
    pub a: f64,
    /// √ᾱ_p − √ᾱ_t · a.
    pub b: f64,
}

/// `x' = m1 · x − m2 · d + sigma · noise`, with `d = x0` or, of second order,
/// `d = now · x0 − old · x0_old`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DpmStep {
    /// √((1 − ᾱ_p) / (1 − ᾱ_t)) · e^(−h), h the step in log signal-to-noise ratio.
    pub m1: f64,
    /// expm1(−2h) · √ᾱ_p; not positive.
    pub m2: f64,
    /// √(1 − ᾱ_p) · √(1 − e^(−2h)).
    pub sigma: f64,
    /// Weights of this and the previous step's x0 (kept in f32); `None` for a first-order step.
    pub second_order: Option<SecondOrder>,
    /// How many latent-sized noise tensors the reference draws in this step. The last one drawn is
    /// used; with 2, the first is thrown away but moves the generator.
    pub draws: u32,
}

/// `d = now · x0 − old · x0_old`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SecondOrder {
    /// 1 + 1/(2r), r the ratio of the previous step's h to this one's.
    pub now: f64,
    /// 1/(2r).
    pub old: f64,
}

impl SchedulerConfig {
    /// The steps of a job that starts from pure noise, `[steps]`.
    ///
    /// # Errors
    /// As [`SchedulerConfig::timesteps`].
    pub fn steps(&self, steps: usize) -> Result<Vec<Step>, SchedulerError> {
        self.steps_without(steps, 0)
    }

    /// The steps of a video-to-video job: the first `skipped` of `steps` are left out (see
    /// [`SchedulerConfig::skipped_steps`]), and the first one done is of first order.
    ///
    /// # Errors
    /// As [`SchedulerConfig::timesteps`].
    pub fn steps_without(&self, steps: usize, skipped: usize) -> Result<Vec<Step>, SchedulerError> {
        let table = self.noise_table();
        let timesteps = self.timesteps(steps)?;
        let timesteps = timesteps.get(skipped..).unwrap_or_default();
        let stride = (self.num_train_timesteps / steps) as i64;
        Ok(timesteps
            .iter()
            .enumerate()
            .map(|(index, &timestep)| {
                let next = timesteps.get(index + 1).copied();
                let prev_timestep = match self.timestep_rule {
                    TimestepRule::Reference => timestep - stride,
                    TimestepRule::Clean => next.unwrap_or(-1),
                };
                let alpha = table.alpha(timestep);
                let alpha_prev = match (self.timestep_rule, next) {
                    (TimestepRule::Clean, None) => 1.0,
                    _ => table.alpha(prev_timestep),
                };
                let update = match self.kind {
                    SchedulerKind::Ddim => Update::Ddim(DdimStep::new(alpha, alpha_prev)),
                    SchedulerKind::Dpm => {
                        let back = (index > 0 && prev_timestep >= 0).then(|| timesteps[index - 1]);
                        Update::Dpm(DpmStep::new(&table, alpha, alpha_prev, back))
                    }
                };
                Step {
                    index,
                    timestep,
                    prev_timestep,
                    sqrt_alpha: alpha.sqrt(),
                    sqrt_beta: (1.0 - alpha).sqrt(),
                    update,
                }
            })
            .collect())
    }
}

impl DdimStep {
    fn new(alpha: f64, alpha_prev: f64) -> Self {
        let a = ((1.0 - alpha_prev) / (1.0 - alpha)).sqrt();
        Self { a, b: alpha_prev.sqrt() - alpha.sqrt() * a }
    }
}

/// λ = ½ ln(ᾱ / (1 − ᾱ)): −∞ for pure noise, +∞ at the clean end.
fn half_log_snr(alpha: f64) -> f64 {
    (alpha / (1.0 - alpha)).sqrt().ln()
}

impl DpmStep {
    /// `back` is the timestep of the step before, or `None` where the reference does a first-order
    /// step: at the first step, and at any whose previous timestep lies past the clean end.
    fn new(table: &NoiseTable, alpha: f64, alpha_prev: f64, back: Option<i64>) -> Self {
        let lambda = half_log_snr(alpha);
        // +∞ when coming from pure noise or going to the clean end; the exponentials then are
        // exactly 0.
        let h = half_log_snr(alpha_prev) - lambda;
        let second_order = back.map(|back| {
            // r is +∞ one step after pure noise: weights 1 and 0.
            let r = (lambda - half_log_snr(table.alpha(back))) / h;
            let old = 1.0 / (2.0 * r);
            SecondOrder { now: 1.0 + old, old }
        });
        Self {
            m1: ((1.0 - alpha_prev) / (1.0 - alpha)).sqrt() * (-h).exp(),
            m2: (-2.0 * h).exp_m1() * alpha_prev.sqrt(),
            sigma: (1.0 - alpha_prev).sqrt() * (1.0 - (-2.0 * h).exp()).sqrt(),
            second_order,
            draws: if back.is_some() { 2 } else { 1 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::TimestepSpacing;
    use super::super::config::published;
    use super::*;

    fn config(kind: SchedulerKind) -> SchedulerConfig {
        published(kind, 1.0)
    }

    fn dpm(step: &Step) -> DpmStep {
        match step.update {
            Update::Dpm(dpm) => dpm,
            Update::Ddim(_) => panic!("a DDIM step"),
        }
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 6e-7, "{a} {b}");
    }

    #[test]
    fn dpm_of_fifty_steps() {
        let steps = config(SchedulerKind::Dpm).steps(50).unwrap();
        assert_eq!(steps.iter().map(|step| dpm(step).draws).sum::<u32>(), 98);

        let first = dpm(&steps[0]);
        assert_eq!((first.m1, first.second_order, first.draws), (0.0, None, 1));
        assert_eq!(first.m2, -steps[1].sqrt_alpha);

        let second = dpm(&steps[1]);
        close(second.m1, 0.478060);
        close(second.m2, -0.014941);
        close(second.sigma, 0.878125);
        assert_eq!(second.second_order, Some(SecondOrder { now: 1.0, old: 0.0 }));

        let middle = dpm(&steps[25]);
        assert_eq!((steps[25].timestep, steps[25].prev_timestep, middle.draws), (499, 479, 2));
        close(middle.m1, 0.912994);
        close(middle.m2, -0.070107);
        close(middle.sigma, 0.313857);
        let weights = middle.second_order.unwrap();
        close(weights.now, 1.490949);
        close(weights.old, 0.490949);

        let last = dpm(&steps[49]);
        assert_eq!((last.m1, last.m2, last.sigma), (0.0, -1.0, 0.0));
        assert_eq!((last.second_order, last.draws, steps[49].prev_timestep), (None, 1, -1));
    }

    #[test]
    fn ddim_ends_on_x0() {
        let steps = config(SchedulerKind::Ddim).steps(50).unwrap();
        assert_eq!(steps[49].update, Update::Ddim(DdimStep { a: 0.0, b: 1.0 }));
        // Pure noise: x0 is -v, whatever x is.
        assert_eq!((steps[0].sqrt_alpha, steps[0].sqrt_beta), (0.0, 1.0));
    }

    #[test]
    fn a_count_that_does_not_divide_1000_keeps_the_references_bookkeeping() {
        let steps = config(SchedulerKind::Dpm).steps(60).unwrap();
        // Ends at timestep 0, not at the clean end: noise stays in the result, and two draws are
        // made.
        assert_eq!(
            (steps[59].timestep, steps[59].prev_timestep, dpm(&steps[59]).draws),
            (16, 0, 2)
        );
        let steps = config(SchedulerKind::Ddim).steps(30).unwrap();
        let off = steps.windows(2).filter(|pair| pair[0].prev_timestep != pair[1].timestep).count();
        assert_eq!(off, 10);
    }

    #[test]
    fn the_clean_rule_goes_from_entry_to_entry_and_ends_without_noise() {
        for kind in [SchedulerKind::Ddim, SchedulerKind::Dpm] {
            let reference = config(kind);
            let clean = SchedulerConfig { timestep_rule: TimestepRule::Clean, ..config(kind) };
            for (count, skipped) in [(30, 0), (55, 0), (60, 0), (75, 0), (60, 13), (1, 0)] {
                let steps = clean.steps_without(count, skipped).unwrap();
                for pair in steps.windows(2) {
                    assert_eq!(pair[0].prev_timestep, pair[1].timestep);
                }
                let last = steps.last().unwrap();
                assert_eq!(last.prev_timestep, -1);
                // Only the clean estimate is left, and no noise is added to it.
                match last.update {
                    Update::Ddim(ddim) => assert_eq!(ddim, DdimStep { a: 0.0, b: 1.0 }),
                    Update::Dpm(dpm) => {
                        assert_eq!((dpm.m1, dpm.m2, dpm.sigma), (0.0, -1.0, 0.0));
                        assert_eq!((dpm.second_order, dpm.draws), (None, 1));
                    }
                }
                if count > 1 {
                    assert_ne!(steps, reference.steps_without(count, skipped).unwrap());
                }
            }
            // Where the count divides 1000, there is nothing to mend.
            for count in [1, 8, 10, 25, 50, 100] {
                assert_eq!(clean.steps(count).unwrap(), reference.steps(count).unwrap());
            }
            // The end is clean even where the model says that it is not.
            let noisy = SchedulerConfig { set_alpha_to_one: false, ..clean };
            let last = *noisy.steps(50).unwrap().last().unwrap();
            assert!(match last.update {
                Update::Ddim(ddim) => ddim.a == 0.0,
                Update::Dpm(dpm) => dpm.m1 == 0.0 && dpm.sigma == 0.0,
            });
        }
    }

    #[test]
    fn skipping_starts_a_new_first_step() {
        let steps = config(SchedulerKind::Dpm).steps_without(50, 10).unwrap();
        assert_eq!(
            (steps.len(), steps[0].index, steps[0].timestep, steps[0].prev_timestep),
            (40, 0, 799, 779)
        );
        assert_eq!(dpm(&steps[0]).second_order, None);
        assert!(dpm(&steps[0]).m1 > 0.8 && dpm(&steps[1]).second_order.is_some());
        assert_eq!(config(SchedulerKind::Dpm).steps_without(5, 6), Ok(vec![]));
    }

    #[test]
    fn no_count_or_spacing_gives_a_number_that_is_not_finite() {
        for kind in [SchedulerKind::Ddim, SchedulerKind::Dpm] {
            for timestep_spacing in
                [TimestepSpacing::Linspace, TimestepSpacing::Leading, TimestepSpacing::Trailing]
            {
                let rules = [TimestepRule::Reference, TimestepRule::Clean];
                for (set_alpha_to_one, rescale_betas_zero_snr, timestep_rule) in
                    [(true, true), (false, true), (true, false)]
                        .into_iter()
                        .flat_map(|(one, zero)| rules.map(|rule| (one, zero, rule)))
                {
                    let config = SchedulerConfig {
                        timestep_spacing,
                        set_alpha_to_one,
                        rescale_betas_zero_snr,
                        timestep_rule,
                        ..config(kind)
                    };
                    for count in (1..=64).chain([100, 250, 333, 499, 500, 501, 750, 999, 1000]) {
                        for step in config.steps(count).unwrap() {
                            let numbers = match step.update {
                                Update::Ddim(DdimStep { a, b }) => vec![a, b],
                                Update::Dpm(dpm) => {
                                    let SecondOrder { now, old } = dpm
                                        .second_order
                                        .unwrap_or(SecondOrder { now: 1.0, old: 0.0 });
                                    vec![dpm.m1, dpm.m2, dpm.sigma, now, old]
                                }
                            };
                            assert!(
                                numbers.iter().all(|n| n.is_finite()),
                                "{config:?} {count} {step:?}"
                            );
                        }
                    }
                }
            }
        }
    }
}
