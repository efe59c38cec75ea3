//! `vidfit config` and `vidfit presets`.

use crate::defaults::{built_in, choices};
use crate::demo;
use crate::exit::Failure;
use crate::say::answer;
use serde_json::json;
use std::fmt::Write;
use vidfit_engine::folders::Folders;
use vidfit_engine::presets::canonical;
use vidfit_engine::settings::{KEYS, Settings};

/// `vidfit config` and `vidfit presets`.
#[derive(clap::Args)]
pub struct ConfigArgs {
    /// As one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Says what every default is, and where it comes from.
///
/// # Errors
/// Bad input if the settings are.
pub fn run(args: &ConfigArgs) -> Result<(), Failure> {
    let folders = Folders::from_env();
    let settings = Settings::load_from(&folders, &|name| std::env::var(name).ok());
    let settings = settings.map_err(Failure::input)?;
    let chosen = settings.get("preset").map(|setting| canonical(&setting.value));
    let preset = chosen.as_ref().and_then(|name| settings.presets.get(name)).map(choices);
    let by_preset = |key: &str| {
        let choice = preset.iter().flatten().find(|(chosen, _)| *chosen == key);
        choice.filter(|_| !settings.goes_before(key, "preset")).map(|(_, value)| value.clone())
    };
    let model = settings.get("model").map_or(demo::NAME, |setting| &setting.value);
    let suits = if model == demo::NAME { choices(&demo::sampling()) } else { Vec::new() };
    let rows = KEYS.map(|(key, meaning)| match (by_preset(key), settings.get(key)) {
        (Some(value), _) => {
            let source = format!("preset {}", chosen.as_deref().unwrap_or_default());
            (key, Some(value), source, meaning)
        }
        (None, Some(setting)) => {
            (key, Some(setting.value.clone()), setting.source.to_string(), meaning)
        }
        (None, None) => (key, standard(key, &suits), "built in".to_owned(), meaning),
    });
    if args.json {
        let values: serde_json::Map<String, serde_json::Value> = rows
            .into_iter()
            .map(|(key, value, source, _)| {
                (key.to_owned(), json!({ "value": value, "source": source }))
            })
            .collect();
        let file = folders.config_file;
        return answer(&json!({ "file": file, "values": values }).to_string());
    }
    let file = folders.config_file.display();
    let is_there = if folders.config_file.exists() { "" } else { ", which is not there" };
    let mut text = format!(
        "The settings are in {file}{is_there}. Write there\n    steps = 30\nor set VIDFIT_STEPS=30; \
         what is said on the command line goes before both.\n\n"
    );
    let rows = rows.map(|(key, value, source, meaning)| {
        (key, value.unwrap_or_else(|| "-".into()), source, meaning)
    });
    let width = |of: fn(&(&str, String, String, &str)) -> usize| rows.iter().map(of).max();
    let values = width(|row| row.1.chars().count()).unwrap_or(0);
    let sources = width(|row| row.2.chars().count()).unwrap_or(0);
    for (key, value, source, meaning) in &rows {
        let _ = writeln!(text, "{key:<20} {value:<values$}  {source:<sources$}  {meaning}");
    }
    answer(&text)
}

/// The default of a key where nobody says anything, for a model that `suits` suit.
fn standard(key: &str, suits: &[(&str, String)]) -> Option<String> {
    if let Some((_, value)) = suits.iter().find(|(suited, _)| *suited == key) {
        return Some(value.clone());
    }
    match key {
        "keep" => Some("true".into()),
        "runs" => Some(Folders::from_env().runs.display().to_string()),
        "warm_pipelines" => Some("0".into()),
        "model" => Some(demo::NAME.into()),
        _ => built_in(key),
    }
}

/// Says what each preset chooses.
///
/// # Errors
/// Bad input if the settings are.
pub fn presets(args: &ConfigArgs) -> Result<(), Failure> {
    let settings = Settings::load().map_err(Failure::input)?;
    if args.json {
        return answer(&json!(settings.presets).to_string());
    }
    let mut text = String::new();
    for (name, preset) in &settings.presets {
        let flags: Vec<String> = choices(preset)
            .into_iter()
            .map(|(key, value)| format!("--{} {value}", key.replace('_', "-")))
            .collect();
        let _ = writeln!(text, "{name:<12} {:<16} {}", preset.description, flags.join(" "));
    }
    text += "
Take one with --preset NAME; what is said beside it goes before it. Your own go into the settings
(`vidfit config` says where):
    [presets.draft]
    steps = 20
    guidance = 5

Smooth guidance rises from 1 to one more than the scale in the course of the steps, as dynamic
guidance was meant to; the reference's jumps from step to step. The clean rule leads each step to the
next one's timestep and the last to no noise at all; by the reference's rule numbers of steps that do
not divide 1000 leave some in the picture. For the very videos of the reference, take no preset.";
    answer(&text)
}
