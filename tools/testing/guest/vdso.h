/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Calls the vDSO's getrandom() like a C library. It enters the kernel only for the first
 * draw, and for the first one after each reseed.
 */
#ifndef VDSO_H
#define VDSO_H

#include <elf.h>
#include <err.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef __aarch64__
#define VDSO_GETRANDOM	"__kernel_getrandom"
#else
#define VDSO_GETRANDOM	"__vdso_getrandom"
#endif

/* From the kernel's include/uapi/linux/random.h since Linux 6.11. */
struct opaque_params {
	uint32_t size;
	uint32_t mmap_prot;
	uint32_t mmap_flags;
	uint32_t reserved[13];
};

static ssize_t (*vdso_getrandom)(void *buffer, size_t length, unsigned int flags,
				 void *state, size_t state_size);
static struct opaque_params vdso_params;

/* Finds a symbol by the vDSO's section headers, which are mapped with it. */
static inline void *vdso_find(const char *wanted)
{
	const char *vdso = (const char *)getauxval(AT_SYSINFO_EHDR);
	const Elf64_Ehdr *file = (const Elf64_Ehdr *)vdso;
	const Elf64_Shdr *sections, *names;
	const Elf64_Sym *symbols;

	if (!vdso)
		return NULL;
	sections = (const Elf64_Shdr *)(vdso + file->e_shoff);
	for (int i = 0; i < file->e_shnum; i++) {
		if (sections[i].sh_type != SHT_DYNSYM)
			continue;
		names = &sections[sections[i].sh_link];
		symbols = (const Elf64_Sym *)(vdso + sections[i].sh_offset);
		for (size_t j = 0; j < sections[i].sh_size / sizeof(*symbols); j++)
			if (!strcmp(vdso + names->sh_offset + symbols[j].st_name, wanted))
				return (void *)(vdso + symbols[j].st_value);
	}
	return NULL;
}

/* Call this first. Returns false if this kernel's vDSO has no getrandom(). */
static inline bool vdso_has_getrandom(void)
{
	*(void **)&vdso_getrandom = vdso_find(VDSO_GETRANDOM);
	if (!vdso_getrandom)
		return false;
	if (vdso_getrandom(NULL, 0, 0, &vdso_params, ~0UL))
		errx(1, "the vDSO does not return the size of its state");
	return true;
}

/* Returns a generator's state, for one thread. */
static inline void *vdso_new_state(void)
{
	void *state = mmap(NULL, sysconf(_SC_PAGESIZE), vdso_params.mmap_prot,
			   vdso_params.mmap_flags, -1, 0);

	if (state == MAP_FAILED)
		err(1, "mapping the vDSO's state");
	return state;
}

static inline void vdso_draw(void *buffer, size_t length, void *state)
{
	if (vdso_getrandom(buffer, length, 0, state, vdso_params.size) != (ssize_t)length)
		errx(1, "the vDSO's getrandom");
}

#endif /* VDSO_H */
