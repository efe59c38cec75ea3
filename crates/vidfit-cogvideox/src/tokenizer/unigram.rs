//! The unigram model: a word is cut where the sum of its pieces' scores is highest.

use std::cmp::Ordering;

use sentencepiece_rs::{PieceType, SentencePieceModel};

/// How much worse than the worst piece a character without piece is (SentencePiece's
/// `kUnkPenalty`).
const UNKNOWN_PENALTY: f64 = 10.0;

/// A piece found in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) id: i64,
    /// The characters it stands for.
    pub(super) surface: String,
}

#[derive(Debug)]
pub(super) struct Unigram {
    /// Sorted by bytes, so that the pieces with a common start lie together.
    pieces: Vec<Piece>,
    unknown_id: i64,
    unknown_score: f64,
}

#[derive(Debug)]
struct Piece {
    bytes: Box<[u8]>,
    id: i64,
    score: f64,
}

/// The best way to cut the word up to some byte: its score, and the last piece on it.
#[derive(Clone, Copy)]
struct Best {
    score: f64,
    start: usize,
    id: i64,
}

impl Unigram {
    pub(super) fn new(model: &SentencePieceModel) -> Result<Self, String> {
        let mut pieces = Vec::new();
        for (id, piece) in model.pieces().iter().enumerate() {
            if !piece.score.is_finite() {
                return Err(format!("piece {:?} has the score {}", piece.piece, piece.score));
            }
            if matches!(piece.kind, PieceType::Normal | PieceType::UserDefined) {
                let bytes = piece.piece.as_bytes().into();
                pieces.push(Piece { bytes, id: id as i64, score: f64::from(piece.score) });
            }
        }
        if pieces.is_empty() {
            return Err("it has no pieces".into());
        }
        let lowest = pieces.iter().map(|piece| piece.score).fold(f64::INFINITY, f64::min);
        pieces.sort_by(|a, b| a.bytes.cmp(&b.bytes));
        Ok(Self {
            pieces,
            unknown_id: model.unk_id() as i64,
            unknown_score: lowest - UNKNOWN_PENALTY,
        })
    }

    /// Appends the pieces of `word`; neighbouring unknown characters become one unknown token.
    pub(super) fn split(&self, word: &str, tokens: &mut Vec<Token>) {
        // Viterbi over byte positions: best[i] is the best cut of word[..i].
        let mut best: Vec<Option<Best>> = vec![None; word.len() + 1];
        for (start, character) in word.char_indices() {
            let so_far = best[start].map_or(0.0, |best| best.score);
            let mut offer = |end: usize, score: f64, id: i64| {
                if best[end].is_none_or(|best| score > best.score) {
                    best[end] = Some(Best { score, start, id });
                }
            };
            let one_character = start + character.len_utf8();
            let mut has_one_character = false;
            for piece in self.pieces_at(&word.as_bytes()[start..]) {
                let end = start + piece.bytes.len();
                has_one_character |= end == one_character;
                offer(end, so_far + piece.score, piece.id);
            }
            if !has_one_character {
                offer(one_character, so_far + self.unknown_score, self.unknown_id);
            }
        }

        let first_token = tokens.len();
        let mut end = word.len();
        while let Some(Best { start, id, .. }) = best[end] {
            match tokens[first_token..].last_mut() {
                Some(after) if id == self.unknown_id && after.id == id => {
                    after.surface.insert_str(0, &word[start..end]);
                }
                _ => tokens.push(Token { id, surface: word[start..end].into() }),
            }
            end = start;
        }
        tokens[first_token..].reverse();
    }

    /// The pieces that `text` starts with, shortest first.
    fn pieces_at<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = &'a Piece> {
        let mut candidates = self.pieces.as_slice();
        text.iter()
            .enumerate()
            .map_while(move |(depth, byte)| {
                // All candidates agree with the text in the bytes before `depth`; shorter ones sort
                // first.
                let order =
                    |piece: &Piece| piece.bytes.get(depth).map_or(Ordering::Less, |b| b.cmp(byte));
                let from = candidates.partition_point(|piece| order(piece).is_lt());
                let to = candidates.partition_point(|piece| order(piece).is_le());
                candidates = &candidates[from..to];
                let shortest = candidates.first()?;
                Some((shortest.bytes.len() == depth + 1).then_some(shortest))
            })
            .flatten()
    }
}
