#!/bin/sh
# Trains weights/tiny/spm.model, the project's own small tokenizer, on the texts of weights/corpus.
#
#   sh weights/train_tokenizer.sh [OUTPUT]       needs spm_train (Debian: apt-get install sentencepiece)
#
# The layout is DeBERTa-v3's: unigram, byte fallback, nmt_nfkc, [PAD] 0, [CLS] 1, [SEP] 2, [UNK] 3,
# then the 256 bytes. One thread, no sampling: the same release of spm_train writes the same vocabulary.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
output=$(realpath -m "${1:-$here/tiny/spm.model}")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Paths end up inside the model: relative ones keep it the same everywhere.
cp "$here"/corpus/*.txt "$scratch"
cd "$scratch"
spm_train \
    --input=code.txt,english.txt,essays.txt,languages.txt,mathematics.txt,prompts.txt \
    --model_prefix=spm --model_type=unigram --vocab_size=2048 \
    --character_coverage=0.9995 --byte_fallback=true --normalization_rule_name=nmt_nfkc \
    --pad_id=0 --bos_id=1 --eos_id=2 --unk_id=3 \
    --pad_piece='[PAD]' --bos_piece='[CLS]' --eos_piece='[SEP]' --unk_piece='[UNK]' \
    --max_sentence_length=16384 --num_threads=1 --minloglevel=1
mv spm.model "$output"
