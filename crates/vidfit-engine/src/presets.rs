//! Named sets of sampling choices.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use vidfit_cogvideox::guidance::GuidanceCurve;
use vidfit_cogvideox::scheduler::{SchedulerKind, TimestepRule};

/// What a preset chooses. Whatever is `None` it leaves alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// What it is for, in a few words.
    #[serde(default)]
    pub description: String,
    /// Denoising steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// Scale of classifier-free guidance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance: Option<f64>,
    /// How the scale varies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dynamic_cfg: Option<GuidanceCurve>,
    /// Where each step leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestep_rule: Option<TimestepRule>,
    /// The scheduler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<SchedulerKind>,
}

/// The presets that come with the program: name, purpose, steps, guidance.
const BUILT_IN: [(&str, &str, usize, f64); 5] = [
    ("fast", "quick tries", 30, 5.0),
    ("balanced", "everyday videos", 50, 6.0),
    ("quality", "final renders", 75, 7.0),
    ("high_motion", "much movement", 60, 6.5),
    ("subtle", "little movement", 55, 5.5),
];

/// The presets that come with the program, by name. Their numbers of steps do not divide 1000, so
/// they take the clean rule; and their guidance rises smoothly, as it was meant to.
pub fn built_in() -> BTreeMap<String, Preset> {
    let preset = |(name, description, steps, guidance): (&str, &str, usize, f64)| {
        let preset = Preset {
            description: description.into(),
            steps: Some(steps),
            guidance: Some(guidance),
            dynamic_cfg: Some(GuidanceCurve::Smooth),
            timestep_rule: Some(TimestepRule::Clean),
            scheduler: None,
        };
        (name.to_owned(), preset)
    };
    BUILT_IN.into_iter().map(preset).collect()
}

/// The name that a preset goes by: `high-motion` is `high_motion`.
pub fn canonical(name: &str) -> String {
    name.trim().to_lowercase().replace('-', "_")
}
