//! `--lora`.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use vidfit_engine::lora::LoraChoice;

/// LoRAs that are added to the transformer.
#[derive(clap::Args, Clone)]
pub struct LoraArgs {
    /// Add a LoRA to the transformer: a safetensors file of diffusers, PEFT, Kohya's trainers or SAT,
    /// or a folder with one. How strongly may follow a colon: FILE:0.5 or FILE:1/128. May be given
    /// several times.
    #[arg(
        long,
        alias = "lora_path",
        alias = "lora-path",
        value_name = "FILE[:SCALE]",
        help_heading = "Sampling"
    )]
    pub lora: Vec<NamedLora>,
    /// Leave out what the model has no place for in a LoRA, instead of refusing it.
    #[arg(long, alias = "lora_lenient", help_heading = "Sampling")]
    pub lora_lenient: bool,
}

impl LoraArgs {
    /// What is asked of the engine. Paths are made absolute, so that a saved plan holds wherever it
    /// is read.
    pub fn choices(&self) -> Vec<LoraChoice> {
        let choice = |NamedLora { path, scale }: &NamedLora| LoraChoice {
            path: std::path::absolute(path).unwrap_or_else(|_| path.clone()),
            scale: *scale,
            is_lenient: self.lora_lenient,
        };
        self.lora.iter().map(choice).collect()
    }
}

/// A LoRA as the command line names it.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedLora {
    /// Its file or folder.
    pub path: PathBuf,
    /// How strongly it counts.
    pub scale: f64,
}

impl FromStr for NamedLora {
    type Err = String;

    /// What follows the last colon is the scale if it is a number, and the whole is not a file.
    fn from_str(text: &str) -> Result<NamedLora, String> {
        let whole = NamedLora { path: text.into(), scale: 1.0 };
        if text.is_empty() {
            return Err("name a file, such as style.safetensors or style.safetensors:0.5".into());
        }
        let Some((path, scale)) = text.rsplit_once(':') else { return Ok(whole) };
        let is_drive = cfg!(windows) && path.len() == 1;
        match number(scale) {
            Some(scale) if !path.is_empty() && !is_drive && !Path::new(text).exists() => {
                Ok(NamedLora { path: path.into(), scale })
            }
            _ => Ok(whole),
        }
    }
}

/// A number, or one over another.
fn number(text: &str) -> Option<f64> {
    let parse = |text: &str| {
        let looks_like_one = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
        text.parse::<f64>().ok().filter(|number| looks_like_one && number.is_finite())
    };
    match text.split_once('/') {
        None => parse(text),
        Some((above, below)) => {
            Some(parse(above)? / parse(below)?).filter(|number| number.is_finite())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_follows_the_last_colon_and_a_drive_is_none() {
        for (text, path, scale) in [
            ("style.safetensors", "style.safetensors", 1.0),
            ("style.safetensors:0.5", "style.safetensors", 0.5),
            ("style.safetensors:-1", "style.safetensors", -1.0),
            ("style.safetensors:1/128", "style.safetensors", 1.0 / 128.0),
            ("style.safetensors:.5", "style.safetensors", 0.5),
            ("style.safetensors:1e-2", "style.safetensors", 0.01),
            (r"C:\loras\style.safetensors", r"C:\loras\style.safetensors", 1.0),
            (r"C:\loras\style.safetensors:0.5", r"C:\loras\style.safetensors", 0.5),
            ("C:/loras/style", "C:/loras/style", 1.0),
            ("a:b:0.5", "a:b", 0.5),
            ("a:b", "a:b", 1.0),
            ("a:nan", "a:nan", 1.0),
            ("a:inf", "a:inf", 1.0),
            ("a:1/0", "a:1/0", 1.0),
            (":0.5", ":0.5", 1.0),
        ] {
            let expected = NamedLora { path: path.into(), scale };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        assert!("".parse::<NamedLora>().is_err());
    }

    #[test]
    fn a_file_with_a_colon_in_its_name_is_that_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("style:0.5");
        // Not every system has such names.
        if std::fs::write(&path, "").is_ok() && path.exists() {
            let named: NamedLora = path.to_str().unwrap().parse().unwrap();
            assert_eq!(named, NamedLora { path, scale: 1.0 });
        }
    }
}
