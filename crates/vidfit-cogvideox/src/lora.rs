//! Low-rank adaptation (LoRA; Hu et al. 2021): from the names and shapes in a file to what is added
//! to which weight of the transformer.
//!
//! Three ways of naming are read, see [`LoraFormat`]. Nothing here opens a file.

mod error;
mod names;
mod scale;

pub use error::LoraError;

use crate::weights::{Form, Manifest, WeightSpec};
use names::{Half, Name, Names};
use scale::Scales;
use std::collections::BTreeMap;

/// What a file has.
pub struct Listing<'f> {
    /// Names and shapes of its tensors.
    pub tensors: Vec<(&'f str, &'f [usize])>,
    /// The text called `lora_adapter_metadata` in its header: JSON that diffusers writes.
    pub metadata: Option<&'f str>,
    /// The value of a tensor of one element.
    pub scalar: &'f dyn Fn(&str) -> Option<f64>,
}

/// How a file names what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoraFormat {
    /// As diffusers and PEFT: `transformer.….to_q.lora_A.weight`. SAT's exporter writes it, too.
    Peft,
    /// As Kohya's trainers: `lora_unet_…_to_q.lora_down.weight`, with an `.alpha` beside it.
    Kohya,
    /// As SAT: `….attention.query_key_value.matrix_A.0`.
    Sat,
}

impl std::fmt::Display for LoraFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            LoraFormat::Peft => "diffusers/PEFT",
            LoraFormat::Kohya => "Kohya",
            LoraFormat::Sat => "SAT",
        })
    }
}

/// What is added to one weight: `factor · b · a`.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// The weight's key in the checkpoint. A convolution over patches is used as a matrix.
    pub key: String,
    /// The tensor `[rank, inputs]`, by its name in the file.
    pub a: String,
    /// The tensor `[outputs, rank]`, by its name in the file.
    pub b: String,
    /// The rank.
    pub rank: usize,
    /// Alpha over the rank.
    pub factor: f64,
}

/// What a file does to a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Adaptation {
    /// How it is written.
    pub format: LoraFormat,
    /// What is added to the weights, in the order of their keys.
    pub updates: Vec<Update>,
    /// Whether the file says how strongly.
    pub has_alpha: bool,
    /// What the user should know, in whole sentences.
    pub warnings: Vec<String>,
}

/// Two factors of a weight, as far as they have been found.
struct Pair<'m, 'f> {
    spec: &'m WeightSpec,
    a: Option<(&'f str, &'f [usize])>,
    b: Option<(&'f str, &'f [usize])>,
    alpha: Option<&'f str>,
}

/// Holds a file against the transformer whose weights `manifest` names. Names that it does not know
/// are an error, or a warning if `is_lenient`.
///
/// # Errors
/// [`LoraError`], for the first thing that is wrong.
pub fn adapt(
    manifest: &Manifest,
    listing: &Listing<'_>,
    is_lenient: bool,
) -> Result<Adaptation, LoraError> {
    let names = Names::of(manifest.weights().filter(|spec| can_change(spec)));
    let mut pairs: BTreeMap<&str, Pair<'_, '_>> = BTreeMap::new();
    let mut unknown = Vec::new();
    let (mut text_encoder, mut dora) = (0, 0);
    let mut format = None;
    for &(name, shape) in &listing.tensors {
        let (found, spec, half) = match names.read(name) {
            Name::OfTextEncoder => {
                text_encoder += 1;
                continue;
            }
            Name::Dora => {
                dora += 1;
                continue;
            }
            Name::Unknown => {
                unknown.push(name);
                continue;
            }
            Name::Known { format, spec, half } => (format, spec, half),
        };
        format = format.or(Some(found));
        let none = Pair { spec, a: None, b: None, alpha: None };
        let pair = pairs.entry(&spec.key).or_insert(none);
        let before = match half {
            Half::A => pair.a.replace((name, shape)).map(|(before, _)| before),
            Half::B => pair.b.replace((name, shape)).map(|(before, _)| before),
            Half::Alpha => pair.alpha.replace(name),
        };
        if let Some(before) = before {
            let (first, second) = (error::short(before), error::short(name));
            return Err(LoraError::Twice { first, second });
        }
    }

    let format = format.unwrap_or(LoraFormat::Peft);
    let scales = Scales::read(format, listing)?;
    let updates = pairs.values().map(|pair| pair.update(&scales));
    let updates = updates.collect::<Result<Vec<Update>, LoraError>>()?;
    if !unknown.is_empty() && !is_lenient {
        return Err(LoraError::unknown(&unknown));
    }
    if updates.is_empty() {
        return Err(LoraError::Nothing { tensors: listing.tensors.len() });
    }

    let has_alpha = scales.says_alpha() || pairs.values().any(|pair| pair.alpha.is_some());
    let mut warnings = Vec::new();
    if !unknown.is_empty() {
        warnings.push(format!("left out: {}", error::named(&unknown)));
    }
    if text_encoder > 0 {
        warnings.push(format!(
            "{text_encoder} of its tensors are for a text encoder, and are left out: CogVideoX's is \
             never trained"
        ));
    }
    if dora > 0 || scales.uses_dora() {
        warnings.push(
            "it is a DoRA, whose magnitudes are left out as in the reference: expect another look"
                .into(),
        );
    }
    warnings.extend(scales.warning(has_alpha, updates.iter().map(|update| update.rank).max()));
    Ok(Adaptation { format, updates, has_alpha, warnings })
}

/// Whether a weight is a matrix of a layer.
fn can_change(spec: &WeightSpec) -> bool {
    spec.key.ends_with(".weight") && spec.stored.len() >= 2 && spec.form == Form::AsStored
}

impl Pair<'_, '_> {
    fn update(&self, scales: &Scales<'_>) -> Result<Update, LoraError> {
        let key = self.spec.key.clone();
        let module = names::module(self.spec);
        let (a, b) = match (self.a, self.b) {
            (Some(a), Some(b)) => (a, b),
            (a, b) => {
                let missing = match (a, b) {
                    (None, None) => "both of its factors",
                    (None, _) => "the factor A (down)",
                    _ => "the factor B (up)",
                };
                return Err(LoraError::Half { module: module.to_owned(), missing });
            }
        };
        let elements =
            |lengths: &[usize]| lengths.iter().fold(1, |a: usize, &b| a.saturating_mul(b));
        // Factors of a convolution over patches have its taps besides: one row of inputs again.
        let ([rank, inputs @ ..], [outputs, ranks @ ..]) = (a.1, b.1) else {
            let name = if a.1.is_empty() { a.0 } else { b.0 };
            return Err(LoraError::Scalar { name: error::short(name) });
        };
        let (rank, inputs, outputs, ranks) = (*rank, elements(inputs), *outputs, elements(ranks));
        if rank != ranks {
            return Err(LoraError::Ranks { module: module.to_owned(), a: rank, b: ranks });
        }
        let expected = (self.spec.shape.rows(), self.spec.shape.columns());
        if (outputs, inputs) != expected {
            let (module, found) = (module.to_owned(), (outputs, inputs));
            return Err(LoraError::OtherModel { module, found, expected });
        }
        if rank == 0 {
            return Err(LoraError::Empty { module: module.to_owned() });
        }
        let factor = scales.factor(module, rank, self.alpha)?;
        Ok(Update { key, a: a.0.to_owned(), b: b.0.to_owned(), rank, factor })
    }
}

#[cfg(test)]
mod tests;
