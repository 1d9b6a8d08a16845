/*
 * mma.cuh - tensor core fragments of 16-bit types: m16n8k16, ldmatrix, cp.async.
 *
 * With g = lane / 4 and t = lane % 4, a lane holds
 *   A [16, 16]   a0: row g, columns 2t, 2t+1   a1: row g+8   a2: row g, columns 2t+8, 2t+9   a3: row g+8
 *   B [16, 8]    b0: rows 2t, 2t+1 of column g               b1: rows 2t+8, 2t+9
 *   C [16, 8]    c0, c1: row g, columns 2t, 2t+1             c2, c3: row g+8
 */
#ifndef BESTROUTE_CUDA_MMA_CUH
#define BESTROUTE_CUDA_MMA_CUH

#include "device.cuh"

namespace
{

struct fragment_a {
    uint32_t r[4];
};

/* B operands of two neighbouring n-tiles: r[0], r[1] of the first, r[2], r[3] of the second. */
struct fragment_b2 {
    uint32_t r[4];
};

template <typename T>
__device__ inline void mma(float (&c)[4], const fragment_a &a, uint32_t b0, uint32_t b1);

template <> __device__ inline void mma<bf16>(float (&c)[4], const fragment_a &a, uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b0), "r"(b1));
}

template <> __device__ inline void mma<half>(float (&c)[4], const fragment_a &a, uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b0), "r"(b1));
}

/* m16n8k32: a lane's bytes lie where its 16-bit elements lie, twice as many of them. Needs sm_89. */
template <> __device__ inline void mma<e4m3>(float (&c)[4], const fragment_a &a, uint32_t b0, uint32_t b1)
{
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 890
    asm("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b0), "r"(b1));
#else
    __trap();
#endif
}

__device__ inline uint32_t shared_address(const void *pointer)
{
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

/* Four 8x8 matrices; lane L gives the address of row L % 8 of matrix L / 8. */
__device__ inline void load_matrices(uint32_t (&r)[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

__device__ inline void load_matrices_transposed(uint32_t (&r)[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

/* Copies 16 bytes from global to shared memory without registers, asynchronously. */
__device__ inline void copy_async(uint32_t to, const void *from)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

__device__ inline void copies_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Waits until at most `kPending` of this thread's committed groups are under way. */
template <int kPending> __device__ inline void copies_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

} // namespace

#endif
