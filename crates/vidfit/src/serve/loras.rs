//! The LoRAs that may be ordered: those of one folder, by their names.

use std::path::PathBuf;
use vidfit_server::Refusal;

/// The folder of LoRAs, if there is one.
pub struct Loras(pub Option<PathBuf>);

/// How the files end, which may be left away.
const ENDING: &str = ".safetensors";

/// A refusal names no more of them.
const MOST_NAMED: usize = 20;

impl Loras {
    /// What `--lora` takes for an order's `NAME` or `NAME:SCALE`. A name is looked for among those that
    /// are there, and never taken for a path.
    ///
    /// # Errors
    /// A refusal, if there is none of that name.
    pub fn spelled(&self, wanted: &str) -> Result<String, Refusal> {
        let refuse = |message: String| Refusal::new("unknown_lora", message).about("lora");
        let Some(folder) = &self.0 else {
            return Err(refuse("this server offers no LoRAs".into()));
        };
        let names = self.names();
        let find = |name: &str| {
            let is_it =
                |there: &&String| *there == name || there.strip_suffix(ENDING) == Some(name);
            names.iter().find(is_it).map(|name| folder.join(name).display().to_string())
        };
        if let Some(path) = find(wanted) {
            return Ok(path);
        }
        let scaled = wanted.rsplit_once(':').and_then(|(name, scale)| Some((find(name)?, scale)));
        match scaled {
            Some((path, scale)) => Ok(format!("{path}:{scale}")),
            None => {
                let named = names.iter().take(MOST_NAMED).map(String::as_str).collect::<Vec<_>>();
                let rest = if names.len() > MOST_NAMED { ", …" } else { "" };
                let there = format!("{}{rest}", named.join(", "));
                Err(refuse(match names.is_empty() {
                    true => format!("there is no LoRA {wanted:?} here, nor any other"),
                    false => format!("there is no LoRA {wanted:?} here; there are: {there}"),
                }))
            }
        }
    }

    /// The names of those that are there, in order.
    fn names(&self) -> Vec<String> {
        let entries = self.0.as_ref().and_then(|folder| std::fs::read_dir(folder).ok());
        let entries = entries.into_iter().flatten().flatten();
        let is_one = |name: &String, path: PathBuf| {
            let is_file = name.ends_with(ENDING) && path.is_file();
            !name.starts_with('.')
                && (is_file || path.join(vidfit_engine::lora::FILE_NAME).is_file())
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                is_one(&name, entry.path()).then_some(name)
            })
            .collect();
        names.sort();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lora_is_one_of_those_that_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        for name in ["style.safetensors", "b.safetensors", "notes.txt"] {
            std::fs::write(place(name), "").unwrap();
        }
        std::fs::create_dir(place("folder")).unwrap();
        std::fs::write(place("folder").join(vidfit_engine::lora::FILE_NAME), "").unwrap();
        let loras = Loras(Some(folder.path().to_owned()));
        for (wanted, path, scale) in [
            ("style.safetensors", "style.safetensors", ""),
            ("style", "style.safetensors", ""),
            ("style:0.5", "style.safetensors", ":0.5"),
            ("folder:1/128", "folder", ":1/128"),
        ] {
            let expected = format!("{}{scale}", place(path).display());
            assert_eq!(loras.spelled(wanted), Ok(expected), "{wanted}");
        }
        let inside = format!("{}/../style", folder.path().display());
        let whole = place("style.safetensors").display().to_string();
        for wanted in ["", "other", "notes.txt", "../style", "./style", &inside, &whole, "style/"] {
            let refusal = loras.spelled(wanted).unwrap_err();
            assert_eq!(refusal.param.as_deref(), Some("lora"));
            assert!(refusal.message.contains("b.safetensors, folder, style.safetensors"));
        }
        assert!(Loras(None).spelled("style").is_err());
    }
}
