//! The file of `--prompts`: one job a line, as a prompt or as a JSON object of options.

use crate::exit::Failure;
use serde_json::{Map, Value};
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A line that asks for a video.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Its number in the file, from 1.
    pub number: usize,
    /// What it says, as it would be written on the command line; or what is wrong with it.
    pub words: Result<Vec<String>, String>,
}

/// Stands before a flag that a line has not, whatever the batch says.
const NOT: &str = "not ";

/// Options of the whole batch, which no line can say otherwise.
const OF_ALL: [&str; 9] =
    ["prompts", "device", "threads", "runs", "progress", "report", "plan", "save-tensors", "help"];

/// No file of prompts is larger, in bytes.
const LONGEST_FILE: u64 = 64 << 20;

/// Reads a file of prompts.
///
/// # Errors
/// Bad input if it cannot be read, or asks for nothing.
pub fn read(path: &Path) -> Result<Vec<Line>, Failure> {
    let about = |what: String| Failure::input(format!("{}: {what}", path.display()));
    let system = |error: std::io::Error| about(error.to_string());
    let mut text = String::new();
    let mut file = std::fs::File::open(path).map_err(system)?.take(LONGEST_FILE + 1);
    file.read_to_string(&mut text).map_err(system)?;
    if text.len() as u64 > LONGEST_FILE {
        return Err(about(format!("more than {LONGEST_FILE} bytes are no list of prompts")));
    }
    let lines: Vec<Line> = lines(&text);
    if lines.is_empty() {
        return Err(about("there is no prompt in it; write one a line".into()));
    }
    Ok(lines)
}

fn lines(text: &str) -> Vec<Line> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let numbered = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    numbered.map(|(index, line)| Line { number: index + 1, words: words(line.trim()) }).collect()
}

fn words(line: &str) -> Result<Vec<String>, String> {
    if !line.starts_with('{') {
        return Ok(vec![format!("--prompt={line}")]);
    }
    let options: Map<String, Value> =
        serde_json::from_str(line).map_err(|error| format!("it is no JSON object: {error}"))?;
    if !options.contains_key("prompt") {
        return Err("it has no \"prompt\"".into());
    }
    let mut words = Vec::new();
    for (key, value) in &options {
        let option = key.replace('_', "-");
        if OF_ALL.contains(&option.as_str()) {
            return Err(format!("{key:?} holds for all lines; say it on the command line"));
        }
        let values = match value {
            Value::Array(values) => &values[..],
            other => std::slice::from_ref(other),
        };
        for value in values {
            match value {
                Value::Null => {}
                Value::Bool(false) if option == "keep" => words.push("--no-keep".to_owned()),
                // Said of the whole batch, it is not said of this line.
                Value::Bool(false) => words.push(format!("{NOT}{option}")),
                Value::Bool(true) => words.push(format!("--{option}")),
                Value::Number(number) => words.push(format!("--{option}={number}")),
                Value::String(text) => words.push(format!("--{option}={text}")),
                _ => return Err(format!("{key:?} is a word, a number or true")),
            }
        }
    }
    Ok(words)
}

/// The command line of one line of the file: the batch's own, with what the line says.
pub fn spelled(batch: &[OsString], line: &[String]) -> Vec<OsString> {
    let mut words = Vec::new();
    let mut rest = batch.iter();
    while let Some(word) = rest.next() {
        if word == "--prompts" {
            rest.next();
        } else if !word.to_string_lossy().starts_with("--prompts=") {
            words.push(word.clone());
        }
    }
    for word in line {
        match word.strip_prefix(NOT) {
            Some(flag) => words.retain(|word| *word != *format!("--{flag}")),
            None => words.push(word.into()),
        }
    }
    words
}

/// Where the video of line `number` of a file that ends with line `last` goes, if the batch says
/// `output`: `panda.mp4` becomes `panda-07.mp4`.
pub fn numbered(output: &Path, number: usize, last: usize) -> PathBuf {
    let width = last.to_string().len();
    let stem = output.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let name = match output.extension() {
        Some(extension) => format!("{stem}-{number:0width$}.{}", extension.to_string_lossy()),
        None => format!("{stem}-{number:0width$}"),
    };
    output.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_and_objects_become_options() {
        let text = "\u{feff}A panda\n\n  --it's odd \r\n{\"prompt\": \"x\", \"seed\": 7, \
                    \"dynamic_cfg\": \"smooth\", \"fit\": true, \"lora\": [\"a\", \"b:0.5\"], \
                    \"keep\": false}\n";
        let lines = lines(text);
        assert_eq!(lines.iter().map(|line| line.number).collect::<Vec<_>>(), [1, 3, 4]);
        assert_eq!(lines[0].words, Ok(vec!["--prompt=A panda".to_owned()]));
        assert_eq!(lines[1].words, Ok(vec!["--prompt=--it's odd".to_owned()]));
        let words = lines[2].words.clone().unwrap();
        let expected = [
            "--dynamic-cfg=smooth",
            "--fit",
            "--no-keep",
            "--lora=a",
            "--lora=b:0.5",
            "--prompt=x",
        ];
        assert_eq!(words[..6], expected);
    }

    #[test]
    fn wrong_lines_say_what_is_wrong() {
        for (line, word) in [
            ("{\"prompt\": }", "JSON"),
            ("{\"seed\": 7}", "no \"prompt\""),
            ("{\"prompt\": {}}", "\"prompt\""),
            ("{\"prompt\": \"x\", \"device\": \"cpu\"}", "command line"),
        ] {
            let error = words(line).unwrap_err();
            assert!(error.contains(word), "{line}: {error}");
        }
    }

    #[test]
    fn a_line_takes_the_batchs_place() {
        let batch =
            ["vidfit", "generate", "--prompts", "f", "--steps", "3", "--prompts=g", "--fit"];
        let line = words("{\"prompt\": \"x\", \"fit\": false}").unwrap();
        let spelled = spelled(&batch.map(OsString::from), &line);
        let expected = ["vidfit", "generate", "--steps", "3", "--prompt=x"];
        assert_eq!(spelled, expected.map(OsString::from));
    }

    #[test]
    fn outputs_are_numbered_before_their_kind() {
        let of = |output: &str| numbered(Path::new(output), 7, 12).display().to_string();
        assert_eq!(of("a/panda.mp4"), "a/panda-07.mp4");
        assert_eq!(of("frames"), "frames-07");
        assert_eq!(of("frames/"), "frames-07");
    }
}
