//! `scheduler_config.json` and the timesteps that follow from it.

use serde::{Deserialize, Serialize};

use super::{NoiseTable, SchedulerError};

/// Which update rule turns a prediction into the next latents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SchedulerKind {
    /// `CogVideoXDDIMScheduler`: deterministic, draws no noise. Recommended for 2b.
    Ddim,
    /// `CogVideoXDPMScheduler`: stochastic, second order. Recommended for all others.
    Dpm,
}

impl SchedulerKind {
    /// The kind that a class name of the reference stands for.
    ///
    /// # Errors
    /// [`SchedulerError::UnknownClass`].
    pub fn of_class(name: &str) -> Result<SchedulerKind, SchedulerError> {
        match name {
            "CogVideoXDDIMScheduler" => Ok(SchedulerKind::Ddim),
            "CogVideoXDPMScheduler" => Ok(SchedulerKind::Dpm),
            other => Err(SchedulerError::UnknownClass(other.into())),
        }
    }
}

/// How n timesteps are spread over the trained ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimestepSpacing {
    /// From 999 to 0 in equal parts, rounded.
    Linspace,
    /// Multiples of `1000 div n`, starting at 0 (plus `steps_offset`).
    Leading,
    /// Starting at 999; the spacing of the published demos.
    Trailing,
}

/// Where a step leads: the timestep whose noise is left after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimestepRule {
    /// `1000 div n` below its own, as the reference has it. If n does not divide 1000, that is not
    /// the next step's timestep, and the last step may leave noise in the picture.
    #[default]
    Reference,
    /// To the next step's timestep, and the last step to no noise at all. The same as
    /// [`TimestepRule::Reference`] where n divides 1000 and timesteps are trailing.
    Clean,
}

/// A checked `scheduler_config.json`.
///
/// Fields that the reference reads but that never reach its arithmetic (`clip_sample`,
/// `clip_sample_range`, `sample_max_value`) are not kept. `trained_betas`, `beta_schedule` and
/// `prediction_type` have one supported value each and are checked on reading.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Published")]
pub struct SchedulerConfig {
    /// The update rule, from `_class_name`.
    pub kind: SchedulerKind,
    /// Length of the noise table, 1000 in every checkpoint.
    pub num_train_timesteps: usize,
    /// β of the first timestep.
    pub beta_start: f64,
    /// β of the last timestep.
    pub beta_end: f64,
    /// Whether the step past the last one has ᾱ = 1 (else ᾱ of timestep 0).
    pub set_alpha_to_one: bool,
    /// Added to every timestep with [`TimestepSpacing::Leading`].
    pub steps_offset: i64,
    /// How timesteps are spread.
    pub timestep_spacing: TimestepSpacing,
    /// Whether ᾱ is rescaled so that the last timestep is pure noise.
    pub rescale_betas_zero_snr: bool,
    /// Shift of the signal-to-noise ratio: 3 for 2b, 1 for the others.
    pub snr_shift_scale: f64,
    /// Where each step leads. No part of the file: [`TimestepRule::Reference`] until it is set.
    pub timestep_rule: TimestepRule,
}

impl SchedulerConfig {
    /// Reads the text of a `scheduler_config.json`.
    ///
    /// # Errors
    /// [`SchedulerError`] naming the class, or the field and its value, that is not supported.
    pub fn from_json(text: &str) -> Result<Self, SchedulerError> {
        let published: Published =
            serde_json::from_str(text).map_err(|error| SchedulerError::Json(error.to_string()))?;
        published.try_into()
    }

    /// ᾱ of every trained timestep.
    pub fn noise_table(&self) -> NoiseTable {
        NoiseTable::new(self)
    }

    /// The timesteps of `steps` denoising steps, from noisy to clean, `[steps]`.
    ///
    /// With [`TimestepSpacing::Trailing`] the reference returns `steps + 1` entries for 62 of the
    /// possible 1000 values (61, 103, 121, … 997): a rounding error in `np.arange` lets the stop
    /// value slip in, so that a last entry −1 is appended, which reads ᾱ of timestep 999 and
    /// replaces the finished latents by the network's raw output. That entry is left out here.
    ///
    /// # Errors
    /// [`SchedulerError::StepCount`] and [`SchedulerError::OffsetOutOfTable`].
    pub fn timesteps(&self, steps: usize) -> Result<Vec<i64>, SchedulerError> {
        let most = self.num_train_timesteps;
        if steps == 0 || steps > most {
            return Err(SchedulerError::StepCount { steps, most });
        }
        let trained = most as f64;
        let timesteps: Vec<i64> = match self.timestep_spacing {
            TimestepSpacing::Linspace => {
                // np.linspace multiplies by the step and then sets the last value exactly.
                let last = trained - 1.0;
                let value = |k: usize| match k {
                    0 => 0.0,
                    k if k == steps - 1 => last,
                    k => k as f64 * (last / (steps - 1) as f64),
                };
                (0..steps).rev().map(|k| value(k).round_ties_even() as i64).collect()
            }
            TimestepSpacing::Leading => {
                let ratio = (most / steps) as i64;
                (0..steps as i64).rev().map(|k| k * ratio + self.steps_offset).collect()
            }
            TimestepSpacing::Trailing => {
                // np.arange(1000, 0, -ratio) does not add -ratio but the difference of its first
                // two values.
                let ratio = trained / steps as f64;
                let difference = (trained - ratio) - trained;
                (0..steps)
                    .map(|k| (trained + k as f64 * difference).round_ties_even() as i64 - 1)
                    .collect()
            }
        };
        let last = most as i64 - 1;
        match timesteps.iter().find(|&&t| !(0..=last).contains(&t)) {
            Some(&timestep) => Err(SchedulerError::OffsetOutOfTable {
                offset: self.steps_offset,
                steps,
                timestep,
                last,
            }),
            None => Ok(timesteps),
        }
    }

    /// How many of `steps` steps a video-to-video job of this `strength` (0 to 1) skips at the
    /// noisy end.
    ///
    /// # Errors
    /// [`SchedulerError::Strength`], or [`SchedulerError::NothingToDo`] if all would be skipped.
    pub fn skipped_steps(steps: usize, strength: f64) -> Result<usize, SchedulerError> {
        if !(0.0..=1.0).contains(&strength) {
            return Err(SchedulerError::Strength(strength));
        }
        let kept = ((steps as f64 * strength) as usize).min(steps);
        if kept == 0 {
            return Err(SchedulerError::NothingToDo {
                strength,
                steps,
                least: 1.0 / steps.max(1) as f64,
            });
        }
        Ok(steps - kept)
    }
}

/// The file as published, with the defaults of the reference's constructors (both have the same).
#[derive(Deserialize)]
#[serde(default)]
struct Published {
    #[serde(rename = "_class_name")]
    class_name: Option<String>,
    num_train_timesteps: usize,
    beta_start: f64,
    beta_end: f64,
    beta_schedule: String,
    trained_betas: Option<serde_json::Value>,
    set_alpha_to_one: bool,
    steps_offset: i64,
    prediction_type: String,
    timestep_spacing: String,
    rescale_betas_zero_snr: bool,
    snr_shift_scale: f64,
}

impl Default for Published {
    fn default() -> Self {
        Self {
            class_name: None,
            num_train_timesteps: 1000,
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule: "scaled_linear".into(),
            trained_betas: None,
            set_alpha_to_one: true,
            steps_offset: 0,
            prediction_type: "epsilon".into(),
            timestep_spacing: "leading".into(),
            rescale_betas_zero_snr: false,
            snr_shift_scale: 3.0,
        }
    }
}

impl TryFrom<Published> for SchedulerConfig {
    type Error = SchedulerError;

    fn try_from(file: Published) -> Result<Self, SchedulerError> {
        let kind = match file.class_name.as_deref() {
            Some(name) => SchedulerKind::of_class(name)?,
            None => return Err(SchedulerError::NoClass),
        };
        let check = |fine: bool, field, value: String, supported| match fine {
            true => Ok(()),
            false => Err(SchedulerError::Unsupported { field, value, supported }),
        };
        check(
            file.prediction_type == "v_prediction",
            "prediction_type",
            format!("{:?}", file.prediction_type),
            "\"v_prediction\"",
        )?;
        check(
            file.beta_schedule == "scaled_linear",
            "beta_schedule",
            format!("{:?}", file.beta_schedule),
            "\"scaled_linear\"",
        )?;
        if let Some(betas) = &file.trained_betas {
            check(false, "trained_betas", betas.to_string(), "null")?;
        }
        check(
            (2..=1_000_000).contains(&file.num_train_timesteps),
            "num_train_timesteps",
            file.num_train_timesteps.to_string(),
            "2 to 1000000",
        )?;
        check(
            0.0 < file.beta_start && file.beta_start < 1.0,
            "beta_start",
            file.beta_start.to_string(),
            "above 0 and below 1",
        )?;
        check(
            file.beta_start <= file.beta_end && file.beta_end < 1.0,
            "beta_end",
            file.beta_end.to_string(),
            "from beta_start to below 1",
        )?;
        check(
            file.snr_shift_scale.is_finite() && file.snr_shift_scale > 0.0,
            "snr_shift_scale",
            file.snr_shift_scale.to_string(),
            "a number above 0",
        )?;
        check(
            file.steps_offset.unsigned_abs() < file.num_train_timesteps as u64,
            "steps_offset",
            file.steps_offset.to_string(),
            "less than num_train_timesteps",
        )?;
        let timestep_spacing = match file.timestep_spacing.as_str() {
            "linspace" => TimestepSpacing::Linspace,
            "leading" => TimestepSpacing::Leading,
            "trailing" => TimestepSpacing::Trailing,
            other => {
                return Err(SchedulerError::Unsupported {
                    field: "timestep_spacing",
                    value: format!("{other:?}"),
                    supported: "\"linspace\", \"leading\", \"trailing\"",
                });
            }
        };
        Ok(Self {
            kind,
            num_train_timesteps: file.num_train_timesteps,
            beta_start: file.beta_start,
            beta_end: file.beta_end,
            set_alpha_to_one: file.set_alpha_to_one,
            steps_offset: file.steps_offset,
            timestep_spacing,
            rescale_betas_zero_snr: file.rescale_betas_zero_snr,
            snr_shift_scale: file.snr_shift_scale,
            timestep_rule: TimestepRule::Reference,
        })
    }
}

/// The scheduler of the checkpoints seen, with the given shift: what the tests start from.
#[cfg(test)]
pub(super) fn published(kind: SchedulerKind, snr_shift_scale: f64) -> SchedulerConfig {
    SchedulerConfig {
        kind,
        num_train_timesteps: 1000,
        beta_start: 0.00085,
        beta_end: 0.012,
        set_alpha_to_one: true,
        steps_offset: 0,
        timestep_spacing: TimestepSpacing::Trailing,
        rescale_betas_zero_snr: true,
        snr_shift_scale,
        timestep_rule: TimestepRule::Reference,
    }
}

#[cfg(test)]
mod tests {
    use super::published as config;
    use super::*;

    fn error_of(text: &str) -> String {
        SchedulerConfig::from_json(text).unwrap_err().to_string()
    }

    #[test]
    fn a_published_file_is_read() {
        let read = SchedulerConfig::from_json(
            r#"{"_class_name": "CogVideoXDDIMScheduler", "_diffusers_version": "0.31", "beta_end": 0.012,
                "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": false, "clip_sample_range": 1.0,
                "num_train_timesteps": 1000, "prediction_type": "v_prediction", "rescale_betas_zero_snr": true,
                "sample_max_value": 1.0, "set_alpha_to_one": true, "snr_shift_scale": 1.0, "steps_offset": 0,
                "timestep_spacing": "trailing", "trained_betas": null}"#,
        );
        assert_eq!(read, Ok(config(SchedulerKind::Ddim, 1.0)));
    }

    #[test]
    fn absent_fields_take_the_defaults_of_the_reference() {
        let read = SchedulerConfig::from_json(
            r#"{"_class_name": "CogVideoXDPMScheduler", "prediction_type": "v_prediction"}"#,
        );
        let expected = SchedulerConfig {
            timestep_spacing: TimestepSpacing::Leading,
            rescale_betas_zero_snr: false,
            ..config(SchedulerKind::Dpm, 3.0)
        };
        assert_eq!(read, Ok(expected));
    }

    #[test]
    fn errors_name_class_field_and_value() {
        let unknown = error_of(r#"{"_class_name": "EulerDiscreteScheduler"}"#);
        assert!(
            unknown.contains("EulerDiscreteScheduler") && unknown.contains("CogVideoXDPMScheduler")
        );
        assert_eq!(SchedulerConfig::from_json("{}"), Err(SchedulerError::NoClass));
        let with = |field: &str| {
            format!(
                r#"{{"_class_name": "CogVideoXDDIMScheduler", "prediction_type": "v_prediction", {field}}}"#
            )
        };
        for (field, parts) in [
            (r#""beta_schedule": "linear""#, ["beta_schedule", "linear"]),
            (r#""trained_betas": [0.1]"#, ["trained_betas", "[0.1]"]),
            (r#""timestep_spacing": "karras""#, ["timestep_spacing", "karras"]),
            (r#""snr_shift_scale": 0"#, ["snr_shift_scale", "0"]),
            (r#""beta_end": 2.0"#, ["beta_end", "2"]),
            (r#""num_train_timesteps": 1"#, ["num_train_timesteps", "1"]),
            (r#""steps_offset": -1000"#, ["steps_offset", "-1000"]),
        ] {
            let message = error_of(&with(field));
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        }
        let epsilon = error_of(r#"{"_class_name": "CogVideoXDDIMScheduler"}"#);
        assert!(epsilon.contains("prediction_type") && epsilon.contains("epsilon"), "{epsilon}");
        assert!(error_of("{").contains("scheduler_config.json"));
        assert!(error_of(&with(r#""beta_start": "x""#)).contains("scheduler_config.json"));
    }

    #[test]
    fn timesteps_of_each_spacing() {
        let mut config = config(SchedulerKind::Ddim, 1.0);
        let fifty = config.timesteps(50).unwrap();
        assert_eq!((fifty.len(), &fifty[..2], &fifty[48..]), (50, &[999, 979][..], &[39, 19][..]));
        assert_eq!(config.timesteps(1), Ok(vec![999]));
        assert_eq!(config.timesteps(3), Ok(vec![999, 666, 332]));
        // 1000/16 = 62.5: halves go to the even neighbour.
        assert_eq!(config.timesteps(16).unwrap()[..4], [999, 937, 874, 811]);
        // np.round(np.arange(1000, 0, -1000/61)) - 1 has a 62nd entry, -1.
        assert_eq!(config.timesteps(61).unwrap()[58..], [48, 32, 15]);
        config.timestep_spacing = TimestepSpacing::Linspace;
        assert_eq!(config.timesteps(50).unwrap()[47..], [41, 20, 0]);
        assert_eq!(config.timesteps(1), Ok(vec![0]));
        config.timestep_spacing = TimestepSpacing::Leading;
        assert_eq!(config.timesteps(3), Ok(vec![666, 333, 0]));
        config.steps_offset = 1;
        assert_eq!(config.timesteps(3), Ok(vec![667, 334, 1]));
        assert!(matches!(
            config.timesteps(1000),
            Err(SchedulerError::OffsetOutOfTable { timestep: 1000, .. })
        ));
    }

    #[test]
    fn every_count_from_1_to_1000_gives_falling_timesteps() {
        for spacing in
            [TimestepSpacing::Linspace, TimestepSpacing::Leading, TimestepSpacing::Trailing]
        {
            let config =
                SchedulerConfig { timestep_spacing: spacing, ..config(SchedulerKind::Ddim, 1.0) };
            for steps in 1..=1000 {
                let timesteps = config.timesteps(steps).unwrap();
                assert_eq!(timesteps.len(), steps, "{spacing:?}");
                assert!(timesteps.windows(2).all(|pair| pair[0] > pair[1]), "{spacing:?} {steps}");
            }
            assert_eq!(
                config.timesteps(0),
                Err(SchedulerError::StepCount { steps: 0, most: 1000 })
            );
            assert_eq!(
                config.timesteps(1001),
                Err(SchedulerError::StepCount { steps: 1001, most: 1000 })
            );
        }
    }

    #[test]
    fn strength_keeps_the_clean_end() {
        assert_eq!(SchedulerConfig::skipped_steps(50, 0.8), Ok(10));
        assert_eq!(SchedulerConfig::skipped_steps(50, 1.0), Ok(0));
        // 10 * 0.29 = 2.9 is cut, not rounded.
        assert_eq!(SchedulerConfig::skipped_steps(10, 0.29), Ok(8));
        assert_eq!(SchedulerConfig::skipped_steps(50, 1.5), Err(SchedulerError::Strength(1.5)));
        assert!(SchedulerConfig::skipped_steps(50, f64::NAN).is_err());
        let nothing = SchedulerConfig::skipped_steps(50, 0.01).unwrap_err().to_string();
        assert!(nothing.contains("0.02"), "{nothing}");
    }
}
