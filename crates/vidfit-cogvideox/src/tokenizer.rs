//! Prompts as token ids, as T5's tokenizer makes them from a checkpoint's `spiece.model`.
//!
//! The text is split at special tokens (`</s>`, `<pad>`, `<unk>`, `<extra_id_0>` …
//! `<extra_id_99>`); what lies between is normalised by the rules stored in the model, cut into
//! words, and each word, with `▁` in front, into the pieces of highest total score (module
//! `unigram`). Ids are padded with `<pad>`; no attention mask is made, since CogVideoX attends to
//! the padding as well.
//!
//! This is SentencePiece's behaviour and, for text in composed form (NFC), that of every
//! transformers release. The `tokenizers` library behind transformers 5 normalises by grapheme and
//! loses the second of two combining marks ("ệ" written as e + U+0323 + U+0302 becomes "ẹ"); that
//! is not repeated here.

mod unigram;

use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use sentencepiece_rs::{ModelType, SentencePieceProcessor};

use unigram::{Token, Unigram};

/// The longest prompt CogVideoX was built for, in tokens with the end mark.
pub const MAX_TOKENS: usize = 226;

/// T5's sentinels, numbered downwards from the end of the vocabulary.
const EXTRA_IDS: usize = 100;

/// The published file has 0.8 MB; nothing that is 64 MiB long is a T5 vocabulary.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// The tokenizer of a checkpoint.
#[derive(Debug)]
pub struct Tokenizer {
    path: PathBuf,
    normalizer: SentencePieceProcessor,
    unigram: Unigram,
    specials: Vec<(String, i64)>,
    pad_id: i64,
    eos_id: i64,
}

/// A prompt as ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The ids of the prompt, the end mark, then padding: `[max_len]`.
    pub ids: Vec<i64>,
    /// How many tokens the whole prompt has, with the end mark, before anything was cut off.
    pub prompt_tokens: usize,
    /// The end of the prompt that did not fit, in normalised spelling.
    pub truncated: Option<String>,
}

/// Why a prompt cannot be tokenised.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file cannot be read.
    #[error("the tokenizer {} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not a whole SentencePiece model.
    #[error("the tokenizer {} is damaged ({reason}); download the checkpoint's spiece.model again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file is a SentencePiece model, but not that of a T5.
    #[error("the tokenizer {} is not a T5 tokenizer: {reason}", path.display())]
    NotT5 {
        /// The file.
        path: PathBuf,
        /// What a T5's would have.
        reason: String,
    },
    /// There is no room for even the end mark.
    #[error("a prompt of at most 0 tokens has no room for its end mark")]
    NoRoom,
}

impl Tokenizer {
    /// Reads a checkpoint's `tokenizer/spiece.model`.
    ///
    /// # Errors
    /// [`TokenizerError`] if it cannot be read, is damaged, or belongs to another kind of model.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, TokenizerError> {
        let path = path.as_ref();
        let failed = |source| TokenizerError::Read { path: path.into(), source };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(failed)?;
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(TokenizerError::NotT5 {
                path: path.into(),
                reason: "it is larger than 64 MiB".into(),
            });
        }
        Self::from_bytes(&bytes, path)
    }

    /// As [`Tokenizer::open`], from the file's content; `path` is for messages.
    ///
    /// # Errors
    /// As [`Tokenizer::open`].
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, TokenizerError> {
        let damaged = |reason: String| TokenizerError::Damaged { path: path.into(), reason };
        let not_t5 =
            |reason: &str| TokenizerError::NotT5 { path: path.into(), reason: reason.into() };
        let normalizer =
            guarded(|| SentencePieceProcessor::from_serialized_model(bytes)).map_err(damaged)?;
        let model = normalizer.model();
        if model.model_type() != ModelType::Unigram {
            return Err(not_t5("its model type is not unigram"));
        }
        let id_of = |piece: &str, missing| {
            model.try_piece_to_id(piece).map(|id| id as i64).ok_or(not_t5(missing))
        };
        let pad_id = id_of("<pad>", "it has no piece <pad>")?;
        let eos_id = id_of("</s>", "it has no piece </s>")?;
        let unk_id = model.unk_id() as i64;
        let mut specials =
            vec![("<pad>".into(), pad_id), ("</s>".into(), eos_id), ("<unk>".into(), unk_id)];
        let after_pieces = model.vocab_size() + EXTRA_IDS - 1;
        specials.extend((0..EXTRA_IDS).map(|n| {
            let name = format!("<extra_id_{n}>");
            let id = model.try_piece_to_id(&name).unwrap_or(after_pieces - n);
            (name, id as i64)
        }));
        let unigram = Unigram::new(model).map_err(damaged)?;
        let tokenizer = Self { path: path.into(), specials, pad_id, eos_id, unigram, normalizer };
        // Broken normalisation rules show only in use; better now than at the first prompt.
        tokenizer.encode("A panda, ½ ＡＢ①.", MAX_TOKENS)?;
        Ok(tokenizer)
    }

    /// The ids of `text`: at most `max_len - 1` of them, the end mark, and padding up to `max_len`.
    ///
    /// # Errors
    /// [`TokenizerError::NoRoom`] for a `max_len` of 0; [`TokenizerError::Damaged`] if the model's
    /// normalisation rules turn out to be broken.
    pub fn encode(&self, text: &str, max_len: usize) -> Result<Encoded, TokenizerError> {
        let room = max_len.checked_sub(1).ok_or(TokenizerError::NoRoom)?;
        let tokens = self.tokens(text)?;
        let kept = tokens.len().min(room);
        let truncated = (kept < tokens.len()).then(|| {
            let surface: String =
                tokens[kept..].iter().map(|token| token.surface.as_str()).collect();
            surface.replace('▁', " ").trim().to_owned()
        });
        let mut ids: Vec<i64> = tokens[..kept].iter().map(|token| token.id).collect();
        ids.push(self.eos_id);
        ids.resize(max_len, self.pad_id);
        Ok(Encoded { ids, prompt_tokens: tokens.len() + 1, truncated })
    }

    /// How many ids there are, sentinels included; the embedding table has at least as many rows.
    pub fn vocab_size(&self) -> usize {
        self.specials
            .iter()
            .map(|&(_, id)| id as usize + 1)
            .fold(self.normalizer.model().vocab_size(), usize::max)
    }

    fn tokens(&self, text: &str) -> Result<Vec<Token>, TokenizerError> {
        let mut tokens = Vec::new();
        let mut plain = 0;
        let mut at = 0;
        while let Some(found) = text[at..].find('<') {
            at += found;
            match self.specials.iter().find(|(name, _)| text[at..].starts_with(name)) {
                Some((name, id)) => {
                    self.plain_tokens(&text[plain..at], &mut tokens)?;
                    tokens.push(Token { id: *id, surface: format!(" {name}") });
                    at += name.len();
                    plain = at;
                }
                None => at += 1,
            }
        }
        self.plain_tokens(&text[plain..], &mut tokens)?;
        Ok(tokens)
    }

    fn plain_tokens(&self, text: &str, tokens: &mut Vec<Token>) -> Result<(), TokenizerError> {
        let normalized = guarded(|| self.normalizer.normalize(text))
            .map_err(|reason| TokenizerError::Damaged { path: self.path.clone(), reason })?;
        for word in normalized
            .split(|c: char| c == '▁' || c.is_whitespace())
            .filter(|word| !word.is_empty())
        {
            self.unigram.split(&format!("▁{word}"), tokens);
        }
        Ok(())
    }
}

/// Runs the SentencePiece crate. It slices strings at offsets that come from the file, so a hostile
/// file can make it panic.
fn guarded<T>(run: impl FnOnce() -> sentencepiece_rs::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("its normalisation rules do not fit together".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field of a protobuf message with a length: number, then bytes.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, bytes.len() as u8];
        out.extend(bytes);
        out
    }

    fn piece(text: &str, score: f32, kind: u8) -> Vec<u8> {
        let mut out = field(1, text.as_bytes());
        out.push(2 << 3 | 5);
        out.extend(score.to_le_bytes());
        out.extend([3 << 3, kind]);
        field(1, &out)
    }

    /// A model of a few pieces, without normalisation rules.
    fn model() -> Vec<u8> {
        let (normal, unknown, control) = (1, 2, 3);
        let mut out = [
            piece("<pad>", 0.0, control),
            piece("</s>", 0.0, control),
            piece("<unk>", 0.0, unknown),
        ];
        let pieces = ["▁", "a", "b", "ab", "▁a", "▁panda", "é"];
        let scores = [-2.0, -3.0, -3.0, -4.0, -3.5, -5.0, -6.0];
        let normals =
            pieces.iter().zip(scores).flat_map(|(text, score)| piece(text, score, normal));
        out.iter_mut().flat_map(std::mem::take).chain(normals).collect()
    }

    fn tokenizer() -> Tokenizer {
        Tokenizer::from_bytes(&model(), Path::new("tiny.model")).unwrap()
    }

    fn ids(text: &str) -> Vec<i64> {
        let encoded = tokenizer().encode(text, 32).unwrap();
        encoded.ids[..encoded.prompt_tokens].to_vec()
    }

    #[test]
    fn a_word_is_cut_where_the_scores_are_best() {
        assert_eq!(ids("panda"), [8, 1]);
        // ▁ + ab = -6 beats ▁a + b = -6.5.
        assert_eq!(ids("ab"), [3, 6, 1]);
        assert_eq!(ids("  a \t b\n"), [7, 3, 5, 1]);
        assert_eq!(ids(""), [1]);
    }

    #[test]
    fn neighbouring_unknown_characters_are_one_token() {
        assert_eq!(ids("xya"), [3, 2, 4, 1]);
        assert_eq!(ids("x y"), [3, 2, 3, 2, 1]);
        assert_eq!(ids("é🐼é"), [3, 9, 2, 9, 1]);
    }

    #[test]
    fn special_tokens_are_found_in_the_text() {
        assert_eq!(ids("a</s>b"), [7, 1, 3, 5, 1]);
        assert_eq!(ids("<pad> a<unk>"), [0, 7, 2, 1]);
        // Ten pieces, so the sentinels have 10 to 109, downwards.
        assert_eq!(ids("<extra_id_0> <extra_id_99>"), [109, 10, 1]);
        // No sentinel: ▁, unknown up to the a, and again behind it.
        assert_eq!(ids("<extra_id_100>"), [3, 2, 4, 2, 1]);
        assert_eq!(tokenizer().vocab_size(), 110);
    }

    #[test]
    fn a_long_prompt_is_cut_and_its_rest_quoted() {
        let exact = tokenizer().encode("panda a", 3).unwrap();
        assert_eq!((exact.ids, exact.truncated), (vec![8, 7, 1], None));
        let cut = tokenizer().encode("panda a x🐼y <pad> ab", 3).unwrap();
        assert_eq!(cut.ids, [8, 7, 1]);
        assert_eq!(cut.truncated.as_deref(), Some("x🐼y <pad> ab"));
        assert_eq!(cut.prompt_tokens, 8);
        assert_eq!(tokenizer().encode("a", 1).unwrap().ids, [1]);
        assert!(matches!(tokenizer().encode("a", 0), Err(TokenizerError::NoRoom)));
    }

    #[test]
    fn padding_fills_up_to_the_length() {
        let encoded = tokenizer().encode("panda", MAX_TOKENS).unwrap();
        assert_eq!(encoded.ids.len(), 226);
        assert_eq!(encoded.ids[..2], [8, 1]);
        assert!(encoded.ids[2..].iter().all(|&id| id == 0));
    }

    fn refused(bytes: &[u8]) -> String {
        Tokenizer::from_bytes(bytes, Path::new("tiny.model")).unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_a_whole_t5_model_is_an_error_with_its_path() {
        let whole = model();
        for length in 0..whole.len() {
            // Some cuts leave a valid, smaller vocabulary; none may panic.
            if let Err(error) = Tokenizer::from_bytes(&whole[..length], Path::new("tiny.model")) {
                assert!(error.to_string().contains("tiny.model"), "{error}");
            }
        }
        assert!(refused(&[]).contains("unk"));
        let html = refused(b"<!DOCTYPE html><html>not found</html>");
        assert!(html.contains("damaged") && html.contains("spiece.model again"), "{html}");
        let other = [piece("<unk>", 0.0, 2), piece("a", -1.0, 1)].concat();
        assert!(refused(&other).contains("no piece <pad>"));
        let nan = [model(), piece("c", f32::NAN, 1)].concat();
        assert!(refused(&nan).contains("score NaN"));
        let pair_encoding = [model(), field(2, &[3 << 3, 2])].concat();
        assert!(refused(&pair_encoding).contains("not unigram"));
        let missing = Tokenizer::open("/nonexistent/spiece.model").unwrap_err().to_string();
        assert!(
            missing.contains("/nonexistent/spiece.model") && missing.contains("cannot be read"),
            "{missing}"
        );
    }

    #[test]
    fn rules_that_cut_characters_in_two_are_an_error() {
        // A trie whose only key is the first byte of "Ａ" (U+FF21, EF BC A1); what follows it is no
        // character.
        let (first_byte, value) = (0xef, 16);
        let mut units = vec![0_u32; 256];
        units[0] = 1 << 10; // the root's children are at 1 ^ byte
        let end = 1 ^ first_byte;
        units[end] = first_byte as u32 | 1 << 8 | ((end ^ value) as u32) << 10; // a key ends here
        units[value] = 0; // and becomes what stands at 0 in the block of texts
        let mut map = 1024_u32.to_le_bytes().to_vec();
        map.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        map.extend(vec![b'x'; 1024]);
        map.push(0);
        let length = map.len();
        let mut normalizer = vec![2 << 3 | 2, length as u8 & 0x7f | 0x80, (length >> 7) as u8];
        normalizer.extend(map);
        let length = normalizer.len();
        let mut spec = vec![3 << 3 | 2, length as u8 & 0x7f | 0x80, (length >> 7) as u8];
        spec.extend(normalizer);
        let error = refused(&[model(), spec].concat());
        assert!(error.contains("do not fit together"), "{error}");
    }
}
