//! What can be wrong with a LoRA.

/// Why a LoRA cannot be added to a model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs)] // The fields are what the messages say they are.
pub enum LoraError {
    #[error(
        "it holds no LoRA: none of its {tensors} tensors is a factor for a weight of this model"
    )]
    Nothing { tensors: usize },
    #[error(
        "{names}. It may be for another kind of model; --lora-lenient leaves out what is not known"
    )]
    Unknown { names: String },
    #[error("it names the same thing twice, as {first} and as {second}")]
    Twice { first: String, second: String },
    #[error("of {module}, {missing} is missing: the file is incomplete")]
    Half { module: String, missing: &'static str },
    #[error("{name} is no matrix")]
    Scalar { name: String },
    #[error("the factors of {module} do not fit each other: A has rank {a}, B {b}")]
    Ranks { module: String, a: usize, b: usize },
    #[error("the factors of {module} are empty: their rank is 0")]
    Empty { module: String },
    #[error("{}", other_model(module, *found, *expected))]
    OtherModel { module: String, found: (usize, usize), expected: (usize, usize) },
    #[error("{name}, its alpha, is not one finite number")]
    Alpha { name: String },
    #[error("its lora_adapter_metadata cannot be read: {what}")]
    Metadata { what: String },
    #[error("its metadata gives {module} the rank {said}, and its factors have {found}")]
    SaidRank { module: String, said: usize, found: usize },
    #[error("it is a {what}, which vidfit does not compute")]
    Kind { what: String },
}

/// Names that are shown of many.
const SHOWN: usize = 3;

/// Characters that are shown of a name.
const LONGEST: usize = 120;

impl LoraError {
    pub(super) fn unknown(names: &[&str]) -> LoraError {
        LoraError::Unknown { names: named(names) }
    }
}

/// Some of these names, and how many there are.
pub(super) fn named(names: &[&str]) -> String {
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| short(name)).collect();
    let more = match names.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let what = if names.len() == 1 { "tensor" } else { "tensors" };
    format!("{} {what} that this model has no place for: {}{more}", names.len(), shown.join(", "))
}

/// A name from a file, not longer than can be read.
pub(super) fn short(name: &str) -> String {
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// Layers as wide as the model show its width.
fn other_model(module: &str, found: (usize, usize), expected: (usize, usize)) -> String {
    if found.0 == found.1 && expected.0 == expected.1 {
        return format!(
            "this LoRA is for a model of width {}{}; this one has {}{}",
            found.0,
            known(found.0),
            expected.0,
            known(expected.0)
        );
    }
    format!(
        "this LoRA is for another model: its factors make {}×{} for {module}, which is {}×{} here",
        found.0, found.1, expected.0, expected.1
    )
}

/// Which of the published models is so wide.
fn known(width: usize) -> &'static str {
    match width {
        1920 => " (CogVideoX-2b)",
        3072 => " (CogVideoX-5b and 1.5)",
        _ => "",
    }
}
