//! What `vidfit inspect` says of a LoRA.

use crate::exit::Failure;
use crate::say::answer;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use vidfit_cogvideox::lora::{Adaptation, LoraError};
use vidfit_engine::checkpoint::Variant;
use vidfit_engine::lora::LoraFile;

/// Prints what the LoRA at `path` is: its format, the models that it fits, its targets and scales.
///
/// # Errors
/// Bad input if it is no LoRA of a published model.
pub fn run(path: &Path, as_json: bool) -> Result<(), Failure> {
    let file = LoraFile::open(path)?;
    let (mut fits, mut first): (Vec<Variant>, Option<Adaptation>) = Default::default();
    let mut why: Option<LoraError> = None;
    for variant in Variant::ALL {
        match file.adapt(&variant.transformer_config().manifest(), false) {
            Ok(found) => {
                fits.push(variant);
                first.get_or_insert(found);
            }
            // That it is for another width says more than what that width leads to.
            Err(error @ LoraError::OtherModel { .. }) => _ = why.get_or_insert(error),
            Err(error) => why = Some(error),
        }
    }
    let Some(found) = first else {
        let why = why.map_or(String::new(), |why| why.to_string());
        return Err(Failure::input(format!(
            "{} is no LoRA of a published model: {why}",
            path.display()
        )));
    };
    let names: Vec<&str> = fits.iter().map(|variant| variant.name()).collect();
    let targets = counted(&found, |update| kind(&update.key));
    let ranks = counted(&found, |update| update.rank.to_string());
    let scales = counted(&found, |update| update.factor.to_string());
    if as_json {
        let report = json!({
            "lora": path, "format": found.format.to_string(), "fits": names, "targets": targets,
            "ranks": ranks, "scales": scales, "says_alpha": found.has_alpha,
            "warnings": found.warnings,
        });
        return answer(&report.to_string());
    }
    let listed = |counts: &BTreeMap<String, usize>| {
        let each = counts.iter().map(|(what, count)| format!("{what} ({count})"));
        each.collect::<Vec<_>>().join(", ")
    };
    let mut lines = vec![
        format!("LoRA in the format of {}, {}", found.format, path.display()),
        format!("  fits     {}", names.join(", ")),
        format!("  targets  {}", listed(&targets)),
        format!("  rank     {}", listed(&ranks)),
        format!("  scale    {}", listed(&scales)),
    ];
    lines.extend(found.warnings.iter().map(|warning| format!("  note     {warning}")));
    answer(&lines.join("\n"))
}

/// How many updates have what in common.
fn counted(
    found: &Adaptation,
    of: impl Fn(&vidfit_cogvideox::lora::Update) -> String,
) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    found.updates.iter().for_each(|update| *counts.entry(of(update)).or_insert(0) += 1);
    counts
}

/// A layer's name without the number of its block.
fn kind(key: &str) -> String {
    let key = key.strip_suffix(".weight").unwrap_or(key);
    let within = key.strip_prefix("transformer_blocks.").and_then(|rest| rest.split_once('.'));
    within.map_or(key, |(_, name)| name).to_owned()
}
