//! Classifier-free guidance: how far the prediction is pushed away from the unconditional one.
//!
//! `out = uncond + g · (cond − uncond)`, in f32, with g from [`Guidance::at`].

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// How the guidance scale changes from step to step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuidanceCurve {
    /// The same scale at every step.
    #[default]
    Constant,
    /// "Dynamic CFG" as the pipelines do it: they put the timestep (999 … 0) where the step number
    /// belongs, so the scale jumps erratically between 1 and 1 + scale. Needed to get their videos.
    Reference,
    /// "Dynamic CFG" as it was meant, and as the original sampler does it: a smooth rise from 1 to
    /// 1 + scale.
    Smooth,
}

/// The guidance of a job.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Guidance {
    /// What the user asked for; 6 is the pipelines' default.
    pub scale: f64,
    /// How it changes.
    pub curve: GuidanceCurve,
}

impl Guidance {
    /// The same scale at every step.
    pub fn constant(scale: f64) -> Self {
        Self { scale, curve: GuidanceCurve::Constant }
    }

    /// Whether the unconditional half is computed at all. Decided by the scale alone, as in the
    /// pipelines.
    pub fn is_on(&self) -> bool {
        self.scale > 1.0
    }

    /// The scale g of one step: `step_index` counts from 0, `timestep` is what the network is told,
    /// `num_steps` is the number of steps done (for video-to-video, after those skipped).
    ///
    /// Both curves: `1 + scale · (1 − cos(π · b⁵)) / 2` with `b = (N − t) / N` or `i / N`. The
    /// fifth power reaches 2·10⁶ for
    /// N = 50 and 10¹² for N = 4, so an error of one f64 unit in it moves g by some 1e-9 and 1e-3.
    pub fn at(&self, step_index: usize, timestep: i64, num_steps: usize) -> f64 {
        let count = num_steps as f64;
        let base = match self.curve {
            GuidanceCurve::Constant => return self.scale,
            GuidanceCurve::Reference => (count - timestep as f64) / count,
            GuidanceCurve::Smooth => step_index as f64 / count,
        };
        1.0 + self.scale * ((1.0 - (PI * base.powf(5.0)).cos()) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_erratic_curve_of_the_pipelines() {
        let guidance = Guidance { scale: 6.0, curve: GuidanceCurve::Reference };
        let scales: Vec<f64> = (0..50).map(|i| guidance.at(i, 999 - 20 * i as i64, 50)).collect();
        let expected = [2.291, 2.544, 6.974, 6.420, 2.788, 4.272];
        assert!(scales.iter().zip(expected).all(|(a, b)| (a - b).abs() < 6e-4), "{scales:?}");
        let expected = [7.000, 6.864, 1.064, 1.000, 1.000, 1.123];
        assert!(scales[44..].iter().zip(expected).all(|(a, b)| (a - b).abs() < 6e-4), "{scales:?}");
    }

    #[test]
    fn the_smooth_curve_rises_from_one() {
        let guidance = Guidance { scale: 6.0, curve: GuidanceCurve::Smooth };
        let scales: Vec<f64> = (0..50).map(|i| guidance.at(i, 0, 50)).collect();
        assert_eq!(scales[0], 1.0);
        assert!(
            scales.windows(2).all(|pair| pair[0] <= pair[1])
                && scales[49] > 6.0
                && scales[49] < 7.0
        );
    }

    #[test]
    fn constant_is_constant_and_one_is_off() {
        assert_eq!(Guidance::constant(6.0).at(3, 939, 50), 6.0);
        assert!(Guidance::constant(1.01).is_on());
        assert!(!Guidance::constant(1.0).is_on());
    }
}
