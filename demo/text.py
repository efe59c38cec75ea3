"""Trains the demo's tokenizer and T5 encoder.

The encoder learns to name, at every one of its places, what a sentence says: colour, shape, motion,
size and background. Afterwards it is frozen, as the published models' T5 is.
"""

import argparse
import io
import json
import math
import random
import shutil
from collections import Counter
from pathlib import Path

import sentencepiece
import sentencepiece.sentencepiece_model_pb2 as sentencepiece_model_pb2
import torch
from transformers import T5Config, T5EncoderModel, T5Tokenizer

import training
import world

TOKENS = 32  # of a prompt, padding and end included
EXTRA_IDS = 100
EMBEDDINGS = 320  # pieces and sentinels, padded
WIDTH = 128
STEPS, BATCH = 1500, 64
SENTENCES = 60_000  # for the tokenizer

CONFIG = dict(
    vocab_size=EMBEDDINGS,
    d_model=WIDTH,
    d_kv=64,
    d_ff=256,
    num_layers=3,
    num_heads=2,
    relative_attention_num_buckets=32,
    relative_attention_max_distance=128,
    dropout_rate=0.0,
    layer_norm_epsilon=1e-6,
    feed_forward_proj="gated-gelu",
    is_encoder_decoder=False,
    use_cache=False,
    tie_word_embeddings=False,
    pad_token_id=0,
    eos_token_id=1,
)


def words_of_the_world() -> Counter[str]:
    """Every word of many sentences, with its count."""
    dice = random.Random(training.SEED)
    combinations = world.combinations(held_out=False)
    scenes = (world.draw_scene(dice, dice.choice(combinations)) for _ in range(SENTENCES))
    sentences = (world.describe(dice, scene)[0].lower() for scene in scenes)
    return Counter(
        word for sentence in sentences for word in sentence.replace(".", " .").replace(",", " ,").split()
    )


def make_tokenizer() -> bytes:
    """A unigram model with a piece for every word of the world and for every character, by which other
    words are spelled; upper case is folded."""
    words = words_of_the_world()
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,'-!?:;"
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(  # for its normalisation; its pieces are replaced
        sentence_iterator=iter([letters] * 10),
        model_writer=model,
        model_type="unigram",
        vocab_size=3 + 1 + len(letters),
        hard_vocab_limit=False,
        required_chars=letters,
        normalization_rule_name="nmt_nfkc_cf",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece="<pad>",
        eos_piece="</s>",
        unk_piece="<unk>",
        num_threads=1,
        minloglevel=2,
    )
    tokenizer = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    del tokenizer.pieces[3:]
    total = sum(words.values())
    scores = {"\u2581" + word: math.log(count / total) for word, count in sorted(words.items()) if word not in ".,"}
    scores |= {letter: -12.0 - 0.01 * i for i, letter in enumerate("\u2581" + letters)}
    for piece, score in scores.items():
        tokenizer.pieces.add(piece=piece, score=score)
    tokenizer.trainer_spec.vocab_size = len(tokenizer.pieces)
    return tokenizer.SerializeToString()


def write_tokenizer(folder: Path) -> None:
    """The four files of the published tokenizer folders."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(make_tokenizer())
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model")).get_piece_size()
    assert pieces + EXTRA_IDS <= EMBEDDINGS, pieces
    extra = [f"<extra_id_{i}>" for i in range(EXTRA_IDS)]
    ids = {token: pieces + EXTRA_IDS - 1 - i for i, token in enumerate(extra)}
    ids = dict(sorted(ids.items(), key=lambda item: item[1]))

    def token(content, strip):
        return dict(content=content, lstrip=strip, normalized=False, rstrip=strip, single_word=False, special=True)

    decoder = {str(i): token(t, False) for i, t in enumerate(("<pad>", "</s>", "<unk>"))}
    decoder.update({str(i): token(t, True) for t, i in ids.items()})
    special = {
        name: {k: v for k, v in token(t, False).items() if k != "special"}
        for name, t in (("eos_token", "</s>"), ("pad_token", "<pad>"), ("unk_token", "<unk>"))
    }
    config = dict(
        add_prefix_space=True,
        added_tokens_decoder=decoder,
        additional_special_tokens=extra,
        clean_up_tokenization_spaces=True,
        eos_token="</s>",
        extra_ids=EXTRA_IDS,
        legacy=True,
        model_max_length=TOKENS,
        pad_token="<pad>",
        sp_model_kwargs={},
        tokenizer_class="T5Tokenizer",
        unk_token="<unk>",
    )
    special = dict(additional_special_tokens=extra, **special)
    for name, value in (("added_tokens", ids), ("special_tokens_map", special), ("tokenizer_config", config)):
        (folder / f"{name}.json").write_text(json.dumps(value, indent=2) + "\n", "utf-8")


def ids_of(tokenizer: T5Tokenizer, sentences: list[str]) -> torch.Tensor:
    """`[sentences, TOKENS]`, padded and cut as the pipeline does."""
    given = dict(padding="max_length", max_length=TOKENS, truncation=True, add_special_tokens=True)
    return tokenizer(sentences, return_tensors="pt", **given).input_ids


def with_strangers(dice: random.Random, sentence: str) -> str:
    """The sentence with words in it that mean nothing here, now and then."""
    words = sentence.split()
    while dice.random() < 0.15:
        stranger = "".join(dice.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(dice.randint(2, 7)))
        words.insert(dice.randint(0, len(words)), stranger)
    return " ".join(words)


BEFORE, AFTER = 1, 17  # buckets of relative positions
ASKED = dict(
    colour=world.COLOURS,
    shape=world.SHAPES,
    motion=world.MOTIONS,
    size=world.SIZES,
    top=world.BACKGROUNDS,
    bottom=world.BACKGROUNDS,
)


def answers(scene: world.Scene, tells_size: bool, tells_background: bool) -> list[int]:
    """The number of each answer; one more than there are where the sentence does not tell."""
    top, bottom = scene.background
    said = dict(colour=scene.colour, shape=scene.shape, motion=scene.motion)
    said["size"] = scene.size if tells_size else None
    said["top"], said["bottom"] = (top, bottom) if tells_background else (None, None)
    return [list(names).index(said[key]) if said[key] else len(names) for key, names in ASKED.items()]


class Reader(torch.nn.Module):
    """The encoder, and the questions that are thrown away after training."""

    def __init__(self):
        super().__init__()
        self.encoder = T5EncoderModel(T5Config(**CONFIG))
        # One head begins by looking at the word before, one at the word after: else "from left to
        # right" and "from right to left" are one for thousands of steps.
        bias = self.encoder.encoder.block[0].layer[0].SelfAttention.relative_attention_bias
        with torch.no_grad():
            bias.weight[BEFORE, 0] = bias.weight[AFTER, 1] = 3.0
        self.questions = torch.nn.ModuleList(torch.nn.Linear(WIDTH, len(names) + 1) for names in ASKED.values())

    def forward(self, ids: torch.Tensor) -> list[torch.Tensor]:
        states = self.encoder(ids).last_hidden_state
        return [question(states) for question in self.questions]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--work", type=Path, required=True, help="folder for states")
    work = options.parse_args().work
    if not (work / "tokenizer").exists():
        shutil.rmtree(work / "tokenizer.part", ignore_errors=True)
        write_tokenizer(work / "tokenizer.part")
        (work / "tokenizer.part").rename(work / "tokenizer")
    tokenizer = T5Tokenizer.from_pretrained(work / "tokenizer")
    combinations = world.combinations(held_out=False)
    torch.manual_seed(training.SEED)
    reader = Reader()

    def loss_of(step: int, dice):
        scenes = [world.draw_scene(dice, dice.choice(combinations)) for _ in range(BATCH)]
        told = [world.describe(dice, scene) for scene in scenes]
        ids = ids_of(tokenizer, [with_strangers(dice, sentence) for sentence, *_ in told])
        right = torch.tensor([answers(scene, *tells) for scene, (_, *tells) in zip(scenes, told)])
        loss, correct = 0.0, 0.0
        for i, scores in enumerate(reader(ids)):
            wanted = right[:, i, None].expand(-1, TOKENS)
            loss = loss + torch.nn.functional.cross_entropy(scores.transpose(1, 2), wanted)
            correct = correct + (scores.argmax(-1) == wanted).float().mean() / len(ASKED)
        return loss, dict(loss=loss.detach(), correct=correct)

    training.train("text", reader, loss_of, work, STEPS, peak=1e-3)
    reader.encoder.save_pretrained(work / "text_encoder")


if __name__ == "__main__":
    main()
