//! How strongly factors count: alpha over the rank, wherever alpha stands.

use super::{Listing, LoraError, LoraFormat, error};
use serde_json::{Map, Value};

/// What a file says of its scales.
pub(super) struct Scales<'f> {
    format: LoraFormat,
    scalar: &'f dyn Fn(&str) -> Option<f64>,
    config: Option<Config>,
}

/// What PEFT's `LoraConfig` says of ranks and alphas. Absent fields are those of PEFT.
struct Config {
    rank: usize,
    alpha: f64,
    ranks: Vec<(Pattern, f64)>,
    alphas: Vec<(Pattern, f64)>,
    /// Whether alpha is divided by the square root of the rank (Kalajdzievski 2023).
    by_root: bool,
    uses_dora: bool,
}

/// The layers that an entry is for. PEFT takes it for a regular expression, which is to match the
/// end of a layer's path from a dot on, or all of it.
struct Pattern {
    path: String,
    is_whole: bool,
}

impl<'f> Scales<'f> {
    pub fn read(format: LoraFormat, listing: &Listing<'f>) -> Result<Scales<'f>, LoraError> {
        let config = listing.metadata.map(Config::parse).transpose()?;
        Ok(Scales { format, scalar: listing.scalar, config })
    }

    /// Whether there is an alpha for all layers.
    pub fn says_alpha(&self) -> bool {
        self.config.is_some()
    }

    pub fn uses_dora(&self) -> bool {
        self.config.as_ref().is_some_and(|config| config.uses_dora)
    }

    /// What the product of a layer's factors is multiplied by. An alpha beside the factors goes
    /// before that of the metadata; without either it is the rank, as in the reference.
    pub fn factor(&self, module: &str, rank: usize, alpha: Option<&str>) -> Result<f64, LoraError> {
        if let Some(name) = alpha {
            let alpha = (self.scalar)(name).filter(|alpha| alpha.is_finite());
            let alpha = alpha.ok_or_else(|| LoraError::Alpha { name: error::short(name) })?;
            return Ok(alpha / rank as f64);
        }
        match (&self.config, self.format) {
            (Some(config), _) => config.factor(module, rank),
            (None, LoraFormat::Sat) => Ok(1.0 / rank as f64),
            (None, _) => Ok(1.0),
        }
    }

    /// What the user should know if the file does not say how strongly it counts.
    pub fn warning(&self, has_alpha: bool, rank: Option<usize>) -> Option<String> {
        let rank = rank?;
        match (has_alpha, self.format) {
            (true, _) => None,
            (false, LoraFormat::Sat) => Some(format!(
                "it is in SAT's own format, and counts by 1/{rank}, alpha over rank as SAT trains"
            )),
            (false, _) => Some(format!(
                "it does not say its alpha, and counts in full. CogVideoX's own trainer has an alpha \
                 of half the rank: then add :0.5 to the file's name; if it was exported from SAT, \
                 add :{}",
                1.0 / rank as f64
            )),
        }
    }
}

impl Config {
    fn parse(text: &str) -> Result<Config, LoraError> {
        let wrong = |what: String| LoraError::Metadata { what };
        let fields: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        // The pipeline's loader puts the model's name in front.
        let field = |name: &str| {
            let value = fields.get(&format!("transformer.{name}")).or_else(|| fields.get(name));
            value.filter(|value| !value.is_null())
        };
        let number = |name: &str, default: f64| match field(name) {
            None => Ok(default),
            Some(value) => {
                let number = value.as_f64().filter(|number| number.is_finite());
                number.ok_or_else(|| wrong(format!("{name} is {value}")))
            }
        };
        let flag = |name: &str| field(name).and_then(Value::as_bool).unwrap_or(false);
        let patterns = |name: &str| -> Result<Vec<(Pattern, f64)>, LoraError> {
            let Some(value) = field(name) else { return Ok(Vec::new()) };
            let entries = value.as_object().ok_or_else(|| wrong(format!("{name} is {value}")))?;
            let entry = |(path, value): (&String, &Value)| {
                let number = value.as_f64().filter(|number| number.is_finite());
                let number = number.ok_or_else(|| wrong(format!("{name} says {path}: {value}")))?;
                Ok((Pattern::parse(path)?, number))
            };
            entries.iter().map(entry).collect()
        };
        let kind = field("peft_type").and_then(Value::as_str).unwrap_or("LORA");
        if kind != "LORA" {
            return Err(LoraError::Kind { what: error::short(kind) });
        }
        let rank = number("r", 8.0)?;
        if !(1.0..=1e9).contains(&rank) {
            return Err(wrong(format!("r is {rank}")));
        }
        Ok(Config {
            rank: rank as usize,
            alpha: number("lora_alpha", 8.0)?,
            ranks: patterns("rank_pattern")?,
            alphas: patterns("alpha_pattern")?,
            by_root: flag("use_rslora"),
            uses_dora: flag("use_dora"),
        })
    }

    fn factor(&self, module: &str, found: usize) -> Result<f64, LoraError> {
        let of = |patterns: &[(Pattern, f64)]| {
            patterns.iter().find(|(pattern, _)| pattern.is_of(module)).map(|(_, number)| *number)
        };
        let said = of(&self.ranks).map_or(self.rank, |rank| rank as usize);
        if said != found {
            return Err(LoraError::SaidRank { module: module.to_owned(), said, found });
        }
        let alpha = of(&self.alphas).unwrap_or(self.alpha);
        let rank = found as f64;
        Ok(if self.by_root { alpha / rank.sqrt() } else { alpha / rank })
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Pattern, LoraError> {
        let (path, is_whole) = match text.strip_prefix('^') {
            Some(path) => (path, true),
            None => (text, false),
        };
        let path = path.strip_suffix('$').unwrap_or(path).replace("\\.", ".");
        if path.contains(|c: char| "\\*+?()[]{}|^$".contains(c)) {
            let what = format!("{} is a regular expression", error::short(text));
            return Err(LoraError::Metadata { what });
        }
        Ok(Pattern { path, is_whole })
    }

    fn is_of(&self, module: &str) -> bool {
        match module.strip_suffix(self.path.as_str()) {
            Some(before) => before.is_empty() || (!self.is_whole && before.ends_with('.')),
            None => false,
        }
    }
}
