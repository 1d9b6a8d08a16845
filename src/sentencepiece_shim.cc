/*
 * sentencepiece_shim.cc - see sentencepiece_shim.h. Works with SentencePiece 0.1.97 and 0.2.
 */
#include "sentencepiece_shim.h"

#include <sentencepiece_processor.h>

#include <cstdio>
#include <new>
#include <string>
#include <vector>

struct br_spm {
    sentencepiece::SentencePieceProcessor processor;
};

br_status br_spm_create(br_spm **out, const void *bytes, size_t size, char *reason, size_t reason_bytes)
{
    *out = nullptr;
    br_spm *spm = nullptr;
    try {
        spm = new br_spm;
        const auto status = spm->processor.LoadFromSerializedProto({static_cast<const char *>(bytes), size});
        if (!status.ok()) {
            std::snprintf(reason, reason_bytes, "%s", status.ToString().c_str());
            delete spm;
            return BR_EFORMAT;
        }
    } catch (const std::bad_alloc &) {
        delete spm;
        return BR_ENOMEM;
    } catch (...) {
        std::snprintf(reason, reason_bytes, "the library threw an exception");
        delete spm;
        return BR_EFORMAT;
    }
    *out = spm;
    return BR_OK;
}

void br_spm_destroy(br_spm *spm)
{
    delete spm;
}

int32_t br_spm_piece_count(const br_spm *spm)
{
    return spm->processor.GetPieceSize();
}

br_spm_kind br_spm_piece_kind(const br_spm *spm, int32_t id)
{
    if (spm->processor.IsControl(id)) return BR_SPM_CONTROL;
    if (spm->processor.IsUnused(id)) return BR_SPM_UNUSED;
    return BR_SPM_TEXT;
}

int32_t br_spm_find(const br_spm *spm, const char *piece)
{
    const int32_t id = spm->processor.PieceToId(piece);
    if (id < 0 || id >= spm->processor.GetPieceSize()) return -1;
    return spm->processor.IdToPiece(id) == piece ? id : -1;
}

br_status br_spm_encode(const br_spm *spm, const char *text, size_t size, int32_t *ids, size_t ids_max,
                        size_t *count)
{
    *count = 0;
    try {
        std::vector<int> all;
        if (!spm->processor.Encode({text, size}, &all).ok()) return BR_EINTERNAL;
        for (size_t i = 0; i < all.size() && i < ids_max; i++) ids[i] = all[i];
        *count = all.size();
    } catch (const std::bad_alloc &) {
        return BR_ENOMEM;
    } catch (...) {
        return BR_EINTERNAL;
    }
    return BR_OK;
}
