//! From a prompt to the ids that the model reads.

use super::Warnings;
use crate::checkpoint::Checkpoint;
use crate::error::EngineError;
use vidfit_cogvideox::tokenizer::MAX_TOKENS;

/// The token ids of a prompt, padded to what the model reads; `name` is what to call it.
pub(super) fn tokenize(
    checkpoint: &Checkpoint,
    name: &str,
    text: &str,
    warnings: &mut Warnings,
) -> Result<Vec<usize>, EngineError> {
    let tokens = checkpoint.transformer.config.max_text_seq_length.min(MAX_TOKENS);
    // Without a tokenizer there is nothing to say, but the model reads as many tokens.
    let Some(tokenizer) = &checkpoint.tokenizer else { return Ok(vec![0; tokens]) };
    let encoded =
        tokenizer.encode(text, tokens).map_err(|error| EngineError::Request(error.to_string()))?;
    if let Some(cut) = encoded.truncated {
        let cut = elided(&cut);
        warnings.push(format!(
            "the {name} has {} tokens, and the model reads {tokens}. This was cut off: “{cut}”",
            encoded.prompt_tokens
        ));
    }
    let ids = encoded.ids.iter().map(|&id| usize::try_from(id).unwrap_or(0));
    Ok(ids.collect())
}

/// The beginning of a long text, and how much more there is.
fn elided(text: &str) -> String {
    const SHOWN: usize = 2000;
    match text.chars().count().saturating_sub(SHOWN) {
        0 => text.to_owned(),
        more => {
            let shown: String = text.chars().take(SHOWN).collect();
            format!("{shown}… (and {more} characters more)")
        }
    }
}
