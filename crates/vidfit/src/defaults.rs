//! What holds where the command line says nothing: the user's settings, the preset that is chosen, and
//! what suits the model that is built in, where that is used. All become the defaults of the arguments,
//! so that nobody else has to know of them.

use crate::args::{Args, DynamicCfg, GenerateType};
use crate::demo;
use crate::exit::Failure;
use clap::builder::OsStr;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches, ValueEnum};
use std::ffi::OsString;
use vidfit_cogvideox::guidance::GuidanceCurve;
use vidfit_cogvideox::scheduler::{SchedulerKind, TimestepRule};
use vidfit_engine::presets::{Preset, canonical};
use vidfit_engine::settings::{KEYS, Settings};

/// Settings that are no argument's default: the models of one task each, what holds for cards alone,
/// flags, and what outlives a job.
pub const NO_ARGUMENTS: [&str; 7] = [
    "t2v_model",
    "i2v_model",
    "v2v_model",
    "vram_buffer",
    "keep",
    "warm_pipelines",
    "idle_unload_seconds",
];

/// Reads the command line, with the settings of this machine as defaults.
///
/// # Errors
/// Bad input if the settings are. A command line that is wrong ends the process, as does `--help`.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Args, Failure> {
    let words = spelled_out(words);
    // Help is there whatever the settings are.
    Args::command().get_matches_from(&words);
    try_parse(words)
}

/// As [`parse`], but for lines that nobody has typed: a wrong one is an error like others.
///
/// # Errors
/// Bad input if the line or the settings are.
pub fn try_parse(words: impl IntoIterator<Item = OsString>) -> Result<Args, Failure> {
    let words = spelled_out(words);
    let read = |command: Command| {
        let wrong = |error: clap::Error| Failure::input(first_line(&error.to_string()));
        command.try_get_matches_from(&words).map_err(wrong)
    };
    let matches = read(Args::command())?;
    let settings = Settings::load()?;
    let mut command = with_settings(Args::command(), &matches, &settings)?;
    let mut matches = read(command.clone())?;
    if is_for_demo(&matches) {
        let command_of_demo = with_choices(Args::command(), &demo::sampling());
        command = with_settings(command_of_demo, &matches, &settings)?;
        matches = read(command.clone())?;
    }
    let matches = match preset(&matches, &settings)? {
        Some(preset) => read(with_preset(command, &matches, preset, &settings))?,
        None => matches,
    };
    Args::from_arg_matches(&matches).map_err(|error| Failure::input(error.to_string()))
}

/// What is wrong, without clap's advice on how to use it.
fn first_line(text: &str) -> String {
    let first = text.lines().next().unwrap_or_default();
    let choices = text.lines().find(|line| line.contains("possible values"));
    let choices = choices.map(|line| format!(" {}", line.trim())).unwrap_or_default();
    format!("{}{choices}", first.trim_start_matches("error: "))
}

/// The command line with a bare `--dynamic-cfg` spelled out, so that a prompt may follow it.
fn spelled_out(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let is_choice = |word: &OsString| {
        word.to_str().is_some_and(|word| DynamicCfg::from_str(word, true).is_ok())
    };
    let mut words: Vec<OsString> = words.into_iter().collect();
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    for place in 0..end {
        let is_bare = words[place] == "--dynamic-cfg" || words[place] == "--dynamic_cfg";
        if is_bare && !words.get(place + 1).is_some_and(is_choice) {
            words[place] = "--dynamic-cfg=reference".into();
        }
    }
    words
}

/// The command with the settings as defaults of the arguments of the same names.
fn with_settings(
    mut command: Command,
    matches: &ArgMatches,
    settings: &Settings,
) -> Result<Command, Failure> {
    for (key, _) in KEYS.into_iter().filter(|(key, _)| !NO_ARGUMENTS.contains(key)) {
        let Some(setting) = settings.get(key) else { continue };
        check(key, &setting.value)
            .map_err(|message| Failure::input(setting.is_wrong(key, message)))?;
        command = with_default(command, key, &setting.value);
    }
    if let Some(setting) = settings.get(task_model(matches)) {
        command = with_default(command, "model", &setting.value);
    }
    Ok(command)
}

/// Whether what is asked for is made with the model that is built in.
fn is_for_demo(matches: &ArgMatches) -> bool {
    let Some((_, matches)) = matches.subcommand() else { return false };
    let model = matches.try_get_one::<String>("model");
    model.is_ok_and(|model| model.is_none_or(|model| model == demo::NAME))
}

/// The command with what a preset chooses as defaults.
fn with_choices(command: Command, preset: &Preset) -> Command {
    choices(preset)
        .into_iter()
        .fold(command, |command, (key, value)| with_default(command, key, &value))
}

/// The setting that names the model for what is asked for.
fn task_model(matches: &ArgMatches) -> &'static str {
    let Some((_, matches)) = matches.subcommand() else { return "t2v_model" };
    let is_given = |id: &str| matches!(matches.try_contains_id(id), Ok(true));
    let named = matches.try_get_one::<GenerateType>("generate_type").ok().flatten();
    match (named, is_given("image"), is_given("video")) {
        (Some(GenerateType::I2v), ..) | (None, true, _) => "i2v_model",
        (Some(GenerateType::V2v), ..) | (None, _, true) => "v2v_model",
        _ => "t2v_model",
    }
}

/// The command with `value` as default of each argument `--key`.
fn with_default(mut command: Command, key: &str, value: &str) -> Command {
    let takers = command.get_subcommands().filter(|command| {
        // What a run was asked for stays so: settings may have changed since.
        let is_of_a_run = ["resume", "decode"].contains(&command.get_name());
        takes(command, key) && (!is_of_a_run || ["runs", "progress"].contains(&key))
    });
    let names: Vec<String> = takers.map(|command| command.get_name().to_owned()).collect();
    for name in names {
        let default = OsStr::from(value.to_owned());
        command = command.mut_subcommand(name, |command| {
            command.mut_arg(key, |argument| argument.default_value(default))
        });
    }
    command
}

/// Whether a command has an option of this name; what is named by its place has no default.
fn takes(command: &Command, key: &str) -> bool {
    command
        .get_arguments()
        .any(|argument| argument.get_id() == key && argument.get_long().is_some())
}

/// Holds a value to what its argument takes.
fn check(key: &str, value: &str) -> Result<(), String> {
    let flag = format!("--{}={value}", key.replace('_', "-"));
    match Args::command().try_get_matches_from(["vidfit", "generate", &flag]) {
        Ok(_) => Ok(()),
        Err(error) => Err(first_line(&error.to_string())),
    }
}

/// The preset that is chosen.
fn preset<'s>(matches: &ArgMatches, settings: &'s Settings) -> Result<Option<&'s Preset>, Failure> {
    let Some((_, matches)) = matches.subcommand() else { return Ok(None) };
    let Ok(Some(name)) = matches.try_get_one::<String>("preset") else { return Ok(None) };
    match settings.presets.get(&canonical(name)) {
        Some(preset) => Ok(Some(preset)),
        None => {
            let known: Vec<&str> = settings.presets.keys().map(String::as_str).collect();
            Err(Failure::input(format!(
                "there is no preset {name:?}. There are {}; `vidfit presets` explains them",
                known.join(", ")
            )))
        }
    }
}

/// The command with what the preset chooses as defaults, but where the command line says otherwise; or
/// the settings, if the preset is one of them and does not count more.
fn with_preset(
    mut command: Command,
    matches: &ArgMatches,
    preset: &Preset,
    settings: &Settings,
) -> Command {
    let Some((_, matches)) = matches.subcommand() else { return command };
    let source = |key: &str| matches.try_contains_id(key).ok().and(matches.value_source(key));
    let is_said = source("preset") == Some(ValueSource::CommandLine);
    for (key, value) in choices(preset) {
        let is_set = !is_said && settings.goes_before(key, "preset");
        if source(key) != Some(ValueSource::CommandLine) && !is_set {
            command = with_default(command, key, &value);
        }
    }
    command
}

/// What a preset chooses, as it would be written on the command line.
pub fn choices(preset: &Preset) -> Vec<(&'static str, String)> {
    let curve = |curve| match curve {
        GuidanceCurve::Constant => "off",
        GuidanceCurve::Reference => "reference",
        GuidanceCurve::Smooth => "smooth",
    };
    let rule = |rule| match rule {
        TimestepRule::Reference => "reference",
        TimestepRule::Clean => "clean",
    };
    let scheduler = |kind| match kind {
        SchedulerKind::Ddim => "ddim",
        SchedulerKind::Dpm => "dpm",
    };
    let all = [
        ("steps", preset.steps.map(|steps| steps.to_string())),
        ("guidance", preset.guidance.map(|guidance| guidance.to_string())),
        ("dynamic_cfg", preset.dynamic_cfg.map(|choice| curve(choice).to_owned())),
        ("timestep_rule", preset.timestep_rule.map(|choice| rule(choice).to_owned())),
        ("scheduler", preset.scheduler.map(|choice| scheduler(choice).to_owned())),
    ];
    all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

/// What an argument of `generate` is by default, without any settings.
pub fn built_in(key: &str) -> Option<String> {
    let command = Args::command();
    let generate = command.find_subcommand("generate")?;
    let argument = generate.get_arguments().find(|argument| argument.get_id() == key)?;
    let values: Vec<&str> =
        argument.get_default_values().iter().filter_map(|value| value.to_str()).collect();
    (!values.is_empty()).then(|| values.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_an_argument_or_has_its_own_use() {
        let command = Args::command();
        let generate = command.find_subcommand("generate").expect("a command");
        for (key, _) in KEYS {
            assert!(takes(generate, key) || NO_ARGUMENTS.contains(&key), "{key}");
        }
    }

    /// What suits the model that is built in stands below everything that anybody says.
    #[test]
    fn what_suits_the_demo_gives_way() {
        let suits = Preset { steps: Some(7), guidance: Some(3.0), ..Preset::default() };
        let of = |command: Command, words: &[&str]| {
            let matches = command.get_matches_from([&["vidfit", "generate", "x"], words].concat());
            let (_, matches) = matches.subcommand().expect("a command");
            let steps = *matches.get_one::<usize>("steps").expect("a default");
            (steps, *matches.get_one::<f64>("guidance").expect("a default"))
        };
        let command = || with_choices(Args::command(), &suits);
        assert_eq!(of(command(), &[]), (7, 3.0));
        assert_eq!(of(command(), &["--steps", "9"]), (9, 3.0));
        assert_eq!(of(with_default(command(), "guidance", "5"), &[]), (7, 5.0));

        let is_for_demo = |words: &[&str]| {
            is_for_demo(&Args::command().get_matches_from([&["vidfit"], words].concat()))
        };
        for words in [&["generate", "x"][..], &["plan"], &["check", "--model", "demo"]] {
            assert!(is_for_demo(words), "{words:?}");
        }
        for words in [&["generate", "x", "--model", "5b"][..], &["resume", "last"], &["recommend"]]
        {
            assert!(!is_for_demo(words), "{words:?}");
        }
    }

    #[test]
    fn a_bare_flag_is_spelled_out() {
        let of = |text: &str| {
            let words = spelled_out(text.split('|').map(OsString::from));
            let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
            words.join("|")
        };
        assert_eq!(of("g|--dynamic-cfg|a panda"), "g|--dynamic-cfg=reference|a panda");
        assert_eq!(of("g|--dynamic_cfg"), "g|--dynamic-cfg=reference");
        for said in ["g|--dynamic-cfg|smooth|x", "g|--dynamic-cfg=off", "g|--|--dynamic-cfg|x"] {
            assert_eq!(of(said), said);
        }
    }
}
