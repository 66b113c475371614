/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * libqbm: persistent dirty bitmaps for any disk image.
 *
 * Generated from qbm-ffi by `make header`; do not edit.
 *
 * Conventions
 * - Functions return 0 (or a documented positive value) on success and -errno on failure.
 * - qbm_error is the caller's; NULL where it is not wanted. Set .size = sizeof(qbm_error) before the call.
 *   .message is one line of UTF-8 for a person; its wording is not part of the ABI.
 * - Structures begin with their size, set by the caller, so that they can grow. A size larger than the library knows is
 *   accepted if the unknown tail is zero, otherwise -E2BIG; a size too small for the first version is -EINVAL.
 * - Strings are NUL-terminated UTF-8 and stay the caller's.
 * - Offsets, lengths and sizes are in bytes.
 * - A handle may be used by several threads at once, except that nothing may run beside or after qbm_close().
 *   Nothing is kept per thread. After fork() only the parent may use a handle.
 * - "Blocks": may wait for a disk. All other functions write to the page cache at most.
 * - The library prints nothing and installs no signal handler. A bug in it (a panic) returns -EIO and poisons the
 *   handle: every later call fails with -EIO and qbm_close() leaves the image marked in use on disk.
 */

#ifndef QBM_H
#define QBM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 Writes set bits ("auto" in qcow2's listings).
 */
#define QBM_BITMAP_RECORDING 1

/*
 Part of a session: open here or elsewhere, or left by a crash that nobody has recovered from.
 */
#define QBM_BITMAP_IN_USE 2

/*
 Usable for nothing but removal.
 */
#define QBM_BITMAP_INCONSISTENT 4

/*
 For qbm_bitmap_add(): begin with every bit set.
 */
#define QBM_BITMAP_ALL_DIRTY 8

/*
 The caller holds QEMU's locks on the descriptor already; take none.
 */
#define QBM_CREATE_NO_LOCK 1

/*
 For qbm_zero(): the range's space may be given back.
 */
#define QBM_ZERO_MAY_UNMAP 1

/*
 What the descriptor stores, and if it stores nothing, QBM_DURABILITY_PROCESS.
 */
#define QBM_DURABILITY_DEFAULT 0

/*
 Bitmaps survive a clean close only.
 */
#define QBM_DURABILITY_CLOSE 1

/*
 Bitmaps survive the end of the process as well, however it comes.
 */
#define QBM_DURABILITY_PROCESS 2

/*
 A session that is not ours is on record: the image is open elsewhere, or its writer crashed.
 */
#define QBM_INFO_IN_USE 1

/*
 Activated, and not inactivated since.
 */
#define QBM_INFO_ACTIVE 2

/*
 Active, and writes are recorded.
 */
#define QBM_INFO_WRITABLE 4

/*
 image_size_bytes is valid.
 */
#define QBM_INFO_SIZE_KNOWN 8

/*
 Activated with QBM_ACTIVATE_DATA: qbm_pread() and its siblings work.
 */
#define QBM_INFO_DATA 16

/*
 The caller holds QEMU's locks on the descriptor already; take none.
 */
#define QBM_OPEN_NO_LOCK 1

/*
 Others may have the image open, even for writing: nothing is changed, and with a session on record bitmaps are in use.
 */
#define QBM_OPEN_SHARED 2

/*
 The image will not be activated for writing; others may read it too.
 */
#define QBM_OPEN_READ_ONLY 4

/*
 Nothing is written: no session, and what recovery finds stays in memory.
 */
#define QBM_ACTIVATE_READ_ONLY 1

/*
 The caller vouches for the data image: that it was written, replaced or cut while the image was closed does not make the
 bitmaps inconsistent. It leaves a trace in the descriptor, and a notice.
 */
#define QBM_ACTIVATE_TRUST_DATA 2

/*
 The library opens the data image itself, a raw local file or block device, for qbm_pread() and its siblings.
 image_size_bytes must be 0: the size is the data image's. Unless the image was opened with QBM_OPEN_NO_LOCK or
 QBM_OPEN_SHARED, the locks are taken that QEMU takes. qbm_inactivate() makes the data image durable and closes it.
 */
#define QBM_ACTIVATE_DATA 4

/*
 Longest bitmap name in bytes, without the NUL.
 */
#define QBM_BITMAP_NAME_MAX 1023

/*
 A _begin function's way to say: call the _wait function of the same group before the data moves.
 */
#define QBM_MUST_WAIT 1

/*
 An open image; opaque.
 */
typedef struct qbm_image qbm_image;

/*
 One bitmap as listings show it.
 */
typedef struct qbm_bitmap_info {
  /*
   sizeof(qbm_bitmap_info), set by the caller.
   */
  size_t size;
  /*
   Bytes of the disk that one bit covers; 0 when an inconsistent bitmap's entry has no valid one.
   */
  uint64_t granularity_bytes;
  /*
   QBM_BITMAP_*.
   */
  uint32_t flags;
  /*
   0.
   */
  uint32_t reserved;
  /*
   NUL-terminated.
   */
  char name[1024];
} qbm_bitmap_info;

/*
 Filled when a function fails. The caller owns it and sets `size` first.
 */
typedef struct qbm_error {
  /*
   sizeof(qbm_error), set by the caller.
   */
  size_t size;
  /*
   The positive errno.
   */
  int32_t errnum;
  /*
   One line, NUL-terminated; cut if it is longer.
   */
  char message[2036];
} qbm_error;

/*
 What a new image is to be.
 */
typedef struct qbm_create_args {
  /*
   sizeof(qbm_create_args), set by the caller.
   */
  size_t size;
  /*
   QBM_CREATE_*.
   */
  uint32_t flags;
  /*
   QBM_DURABILITY_*; stored unless it is the default.
   */
  uint32_t durability;
  /*
   Size of the disk, rounded up to 512; of an adopted image, its present size.
   */
  uint64_t image_size_bytes;
  /*
   An existing image to adopt, relative to the descriptor's directory; it is never opened for writing here.
   NULL: a sparse raw file is made beside the descriptor.
   */
  const char *data_file;
  /*
   QEMU's name of the data image's format. NULL: "raw".
   */
  const char *data_format;
  /*
   Receives the data image's path, NUL-terminated. May be NULL.
   */
  char *data_file_out;
  /*
   Size of data_file_out.
   */
  size_t data_file_out_size;
} qbm_create_args;

/*
 What an image is made of, and its state.
 */
typedef struct qbm_info {
  /*
   sizeof(qbm_info), set by the caller.
   */
  size_t size;
  /*
   Size of the disk: what was given while active, otherwise what was recorded last. Valid with QBM_INFO_SIZE_KNOWN.
   */
  uint64_t image_size_bytes;
  /*
   QBM_INFO_*.
   */
  uint32_t flags;
  /*
   QBM_DURABILITY_CLOSE or _PROCESS: in force while active, otherwise stored.
   */
  uint32_t durability;
  /*
   Bitmaps, inconsistent ones included.
   */
  uint32_t bitmaps_count;
  /*
   0.
   */
  uint32_t reserved;
  /*
   The data image, resolved against the descriptor's directory.
   */
  char data_file[4096];
  /*
   QEMU's name of its format.
   */
  char data_format[64];
} qbm_info;

/*
 How a descriptor is opened.
 */
typedef struct qbm_open_args {
  /*
   sizeof(qbm_open_args), set by the caller.
   */
  size_t size;
  /*
   QBM_OPEN_*.
   */
  uint32_t flags;
  /*
   0.
   */
  uint32_t reserved;
} qbm_open_args;

/*
 How an image is activated.
 */
typedef struct qbm_activate_args {
  /*
   sizeof(qbm_activate_args), set by the caller.
   */
  size_t size;
  /*
   QBM_ACTIVATE_*.
   */
  uint32_t flags;
  /*
   QBM_DURABILITY_*; the default is what the descriptor stores.
   */
  uint32_t durability;
  /*
   The data image's size now; 0 with QBM_ACTIVATE_DATA.
   */
  uint64_t image_size_bytes;
  /*
   The local file that the data image is. NULL: the one that the descriptor names. "": there is none, or it is not for
   the library to look at; then a change behind its back is noticed by the size only.
   */
  const char *data_file;
} qbm_activate_args;

/*
 Stands for one write between _begin and _end. Its content is the library's.
 */
typedef struct qbm_ticket {
  /*
   Not to be looked at.
   */
  uint64_t opaque[2];
} qbm_ticket;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 Describes bitmap number index, from 0. The name of an entry that breaks the rules is cut where it does not fit.

 Errors: -ENOENT past the last one, -EINVAL.
 */
int32_t qbm_bitmap_get(const struct qbm_image *image,
                       uint32_t index,
                       struct qbm_bitmap_info *info,
                       struct qbm_error *error);

/*
 Describes the bitmap of a name.

 Errors: -ENOENT when there is none, -EINVAL.
 */
int32_t qbm_bitmap_find(const struct qbm_image *image,
                        const char *name,
                        struct qbm_bitmap_info *info,
                        struct qbm_error *error);

/*
 Whether qbm_bitmap_add() would succeed, as far as names and caps go.

 Errors: -EEXIST, -ENAMETOOLONG, -EINVAL (name, granularity), -EFBIG (caps), -EROFS.
 */
int32_t qbm_bitmap_can_store(const struct qbm_image *image,
                             const char *name,
                             uint64_t granularity_bytes,
                             struct qbm_error *error);

/*
 Adds a bitmap, empty unless flags have QBM_BITMAP_ALL_DIRTY (for one whose bits are about to be stored: a crash before
 that must not leave it empty). When this returns it is on disk and, with QBM_BITMAP_RECORDING in flags, no later write can
 miss it; writes in flight are included. granularity_bytes: a power of two from 512 to 2 GiB. Blocks.

 Errors: as qbm_bitmap_can_store(), or the system's. Nothing has changed then.
 */
int32_t qbm_bitmap_add(struct qbm_image *image,
                       const char *name,
                       uint64_t granularity_bytes,
                       uint32_t flags,
                       struct qbm_error *error);

/*
 Removes a bitmap, consistent or not, and its file. Blocks.

 A file outside the descriptor's directory is left; a notice says so.
 Errors: -ENOENT, -EROFS, or the system's.
 */
int32_t qbm_bitmap_remove(struct qbm_image *image, const char *name, struct qbm_error *error);

/*
 Turns recording on or off; durable when this returns. Turned on, no later write can miss the bitmap. Blocks.

 Errors: -ENOENT (also for an inconsistent bitmap), -EROFS, or the system's.
 */
int32_t qbm_bitmap_set_recording(struct qbm_image *image,
                                 const char *name,
                                 bool recording,
                                 struct qbm_error *error);

/*
 Gives a bitmap up, durably: it can only be removed from now on. Blocks.

 Errors: -ENOENT, -EROFS, or the system's.
 */
int32_t qbm_bitmap_set_inconsistent(struct qbm_image *image,
                                    const char *name,
                                    struct qbm_error *error);

/*
 Finds the first dirty granule at or after the one that holds offset.

 Returns 1 and its offset in *dirty_offset, 0 when there is none. Errors: -ENOENT when no such bitmap is loaded.
 */
int32_t qbm_bitmap_next_dirty(const struct qbm_image *image,
                              const char *name,
                              uint64_t offset,
                              uint64_t *dirty_offset,
                              struct qbm_error *error);

/*
 Copies the bits of [offset, offset + bytes) into buf: bit 0 of byte 0 is the first granule, as in a bitmap file.

 offset is a multiple of 64 granules; so is bytes, unless the range reaches the end of the image. buf_size is at
 least one byte for every eight granules begun.
 Errors: -ENOENT when no such bitmap is loaded, -EINVAL (alignment, buffer).
 */
int32_t qbm_bitmap_load_bits(const struct qbm_image *image,
                             const char *name,
                             uint64_t offset,
                             uint64_t bytes,
                             void *buf,
                             size_t buf_size,
                             struct qbm_error *error);

/*
 Makes the bits of a range (as for qbm_bitmap_load_bits()) what bits says; NULL: zero. Only while no write is in flight.

 Errors: as qbm_bitmap_load_bits(), -EROFS, or the system's; the file then holds old bits, new bits, or a mixture.
 */
int32_t qbm_bitmap_store_bits(struct qbm_image *image,
                              const char *name,
                              uint64_t offset,
                              uint64_t bytes,
                              const void *bits,
                              size_t bits_size,
                              struct qbm_error *error);

/*
 Adds bits to a range (as for qbm_bitmap_load_bits()). Safe beside writes in flight. On return the disk holds them at
 the image's durability.

 Errors: as qbm_bitmap_store_bits().
 */
int32_t qbm_bitmap_merge_bits(struct qbm_image *image,
                              const char *name,
                              uint64_t offset,
                              uint64_t bytes,
                              const void *bits,
                              size_t bits_size,
                              struct qbm_error *error);

/*
 Makes an image: the descriptor at path and, unless one is adopted, a data image beside it.

 A file at path is replaced only if it is empty or a QBM descriptor; what that named is left alone. After an error
 nothing new is left. Blocks.

 Returns 0; 1 when the data image's derived name was taken (that file is left alone) and another was used.
 Errors: -EEXIST (path is something else), -EINVAL, -EFBIG, -EAGAIN (in use), or the system's.
 */
int32_t qbm_create(const char *path,
                   const struct qbm_create_args *args,
                   struct qbm_error *error);

/*
 Reads bytes at offset into buf; a read-only image too. Blocks.

 What the disk has beyond the end of the file, the rest of its last 512 bytes, is zeros. Any number of threads may
 read and write at once; beside a write of the same bytes, a read returns the old or the new of each.
 Errors: -EINVAL (beyond the disk), -EBADF (not activated with QBM_ACTIVATE_DATA), or the system's; what is in buf
 then is unspecified.
 */
int32_t qbm_pread(const struct qbm_image *image,
                  uint64_t offset,
                  size_t bytes,
                  void *buf,
                  struct qbm_error *error);

/*
 Writes bytes from buf at offset. Blocks.

 The range, rounded outwards, is dirty in every recording bitmap before the data moves, as durable as the image's
 durability says. The data is in the page cache when this returns: it survives the process, and a power cut after
 qbm_flush(). Any number of threads may write at once; writes that overlap are neither ordered nor atomic, as with
 pwrite(2).
 Errors: -EINVAL (beyond the disk), -EROFS (not activated for writing), -EBADF (not activated with
 QBM_ACTIVATE_DATA), or the system's, such as -ENOSPC and -EIO: any part may have been written, and all of the range
 is dirty.
 */
int32_t qbm_pwrite(struct qbm_image *image,
                   uint64_t offset,
                   size_t bytes,
                   const void *buf,
                   struct qbm_error *error);

/*
 Makes bytes at offset read as zeros: by the file system or the device where that can do it, otherwise by writing
 them. Blocks.

 flags: QBM_ZERO_MAY_UNMAP. Recorded, durable and in parallel as qbm_pwrite(), with its errors.
 */
int32_t qbm_zero(struct qbm_image *image,
                 uint64_t offset,
                 uint64_t bytes,
                 uint32_t flags,
                 struct qbm_error *error);

/*
 Says that bytes at offset are needed no more; their space is given back where that is possible. Blocks.

 Advice: where it is not possible nothing happens, and 0 is returned. The range then reads as zeros or as before, and is
 dirty in either case. Recorded and in parallel as qbm_pwrite(), with its errors.
 */
int32_t qbm_discard(struct qbm_image *image,
                    uint64_t offset,
                    uint64_t bytes,
                    struct qbm_error *error);

/*
 Makes every write that has returned durable in the data image. Bitmaps become durable at the end of the session. Blocks.

 Errors: -EBADF (not activated with QBM_ACTIVATE_DATA), or the system's, such as -EIO. Those are final: what was written
 before may be lost, every later flush fails too, and every bitmap is inconsistent.
 */
int32_t qbm_flush(struct qbm_image *image,
                  struct qbm_error *error);

/*
 Cuts the data image, a regular file, to new_size_bytes, or grows it with zeros; the bitmaps follow, and what the disk
 gains is dirty. Reads and writes of other threads wait meanwhile. Blocks.

 The disk has the size rounded up to 512. The bitmaps' part is durable when this returns, the data image's length after
 qbm_flush(). After an error disk and bitmaps have the size that the data image has.
 Errors: -ENOTSUP (a block device), -EFBIG (a bitmap, or the disk, would exceed its cap), -EROFS (not activated for
 writing), -EBADF (not activated with QBM_ACTIVATE_DATA), or the system's.
 */
int32_t qbm_truncate(struct qbm_image *image,
                     uint64_t new_size_bytes,
                     struct qbm_error *error);

/*
 Tells what an image is made of, and its state.

 Errors: -EINVAL for NULL or a wrong size, -ENAMETOOLONG when a name does not fit.
 */
int32_t qbm_get_info(const struct qbm_image *image, struct qbm_info *info, struct qbm_error *error);

/*
 Takes the oldest line for the operator's log that was not taken yet: what recovery did, why a bitmap is inconsistent.

 Returns 1 and fills buf (NUL-terminated, cut if need be); 0 when there is none; -EINVAL for NULL.
 */
int32_t qbm_take_notice(const struct qbm_image *image,
                        char *buf,
                        size_t buf_size);

/*
 Opens and checks a descriptor. Neither the data image nor any bitmap file is opened. Blocks.

 Without QBM_OPEN_NO_LOCK and QBM_OPEN_SHARED the locks are taken that QEMU takes, for as long as the handle is open.
 On success *out is a handle to be given to qbm_close(); otherwise it is NULL.
 Errors: -EINVAL (a rule of the format is broken), -ENOTSUP, -EFBIG, -EAGAIN (in use), or the system's.
 */
int32_t qbm_open(const char *path,
                 const struct qbm_open_args *args,
                 struct qbm_image **out,
                 struct qbm_error *error);

/*
 Recovers, loads the bitmaps and, unless read-only, begins a session: from then on writes are recorded. Blocks.

 What is wrong with a bitmap makes that bitmap inconsistent and leaves a notice; it is no error.
 Errors: -EINVAL (active already), -EFBIG, or the system's, such as -ENOSPC or -EROFS: the session cannot be written.
 With QBM_ACTIVATE_DATA also -ENOTSUP (the data image is not raw), -EAGAIN (it is open elsewhere), -EINVAL (it is neither
 a regular file nor a block device, or it is the descriptor or a bitmap file).
 */
int32_t qbm_activate(struct qbm_image *image,
                     const struct qbm_activate_args *args,
                     struct qbm_error *error);

/*
 Writes what the bitmap files lack, makes it durable, and ends the session. No write may be in flight. Blocks.

 The handle stays open and may be activated again. An image that is not active: 0.
 Errors: the system's. A bitmap that could not be stored is inconsistent then, the others are fine; if the session
 could not be ended, the image stays in use on disk, as after a crash. A data image that the library opened could not be
 made durable: every bitmap is inconsistent. So they are, without an error, if its path leads to another file by now.
 */
int32_t qbm_inactivate(struct qbm_image *image,
                       struct qbm_error *error);

/*
 Inactivates, then frees the handle, whatever the result. NULL: does nothing and returns 0. Blocks.

 Errors: as qbm_inactivate(); -EIO for a poisoned handle, whose image is left in use on disk.
 */
int32_t qbm_close(struct qbm_image *image, struct qbm_error *error);

/*
 Announces that the data image is about to get new_size_bytes; a tail that it gains is recorded. Blocks.

 Errors: -EROFS, -EFBIG (a bitmap would exceed its cap), -EINVAL (activated with QBM_ACTIVATE_DATA), or the system's: do
 not resize the data image.
 */
int32_t qbm_co_truncate_begin(struct qbm_image *image,
                              uint64_t new_size_bytes,
                              struct qbm_error *error);

/*
 Fits the bitmaps to actual_size_bytes, the data image's size now, whether the resize worked or not. Blocks.

 Errors: the system's; what is on disk then fits both sizes.
 */
int32_t qbm_co_truncate_end(struct qbm_image *image,
                            uint64_t actual_size_bytes,
                            struct qbm_error *error);

/*
 The library's version, such as "0.1.0". Static; never freed.
 */
const char *qbm_version(void);

/*
 Whether buf, the first len bytes of a file (512, or all of a shorter one), begins a QBM descriptor: 100 or 0, as
 QEMU's bdrv_probe scores. NULL scores 0.
 */
int32_t qbm_probe(const void *buf,
                  size_t len);

/*
 Announces a write of bytes at offset: recorded in every recording bitmap, rounded outwards, before the data moves.

 Returns 0: go ahead; QBM_MUST_WAIT: first call qbm_co_writev_wait() from a thread that may wait for a disk;
 -errno: fail the write (-EROFS when the image is not active for writing, -EIO for a poisoned handle), without _end.
 */
int32_t qbm_co_writev_begin(struct qbm_image *image,
                            uint64_t offset,
                            uint64_t bytes,
                            struct qbm_ticket *ticket);

/*
 What QBM_MUST_WAIT asks for. Returns 0: go ahead; -errno: fail the write. _end follows in both cases. Blocks.
 */
int32_t qbm_co_writev_wait(struct qbm_image *image,
                           const struct qbm_ticket *ticket,
                           struct qbm_error *error);

/*
 Says that the data moved, or failed to.
 */
void qbm_co_writev_end(struct qbm_image *image, const struct qbm_ticket *ticket);

/*
 As qbm_co_writev_begin(), for a write of zeroes.
 */
int32_t qbm_co_write_zeroes_begin(struct qbm_image *image,
                                  uint64_t offset,
                                  uint64_t bytes,
                                  struct qbm_ticket *ticket);

/*
 As qbm_co_writev_wait(), for a write of zeroes.
 */
int32_t qbm_co_write_zeroes_wait(struct qbm_image *image,
                                 const struct qbm_ticket *ticket,
                                 struct qbm_error *error);

/*
 As qbm_co_writev_end(), for a write of zeroes.
 */
void qbm_co_write_zeroes_end(struct qbm_image *image, const struct qbm_ticket *ticket);

/*
 As qbm_co_writev_begin(), for a discard: what is read afterwards may differ.
 */
int32_t qbm_co_discard_begin(struct qbm_image *image,
                             uint64_t offset,
                             uint64_t bytes,
                             struct qbm_ticket *ticket);

/*
 As qbm_co_writev_wait(), for a discard.
 */
int32_t qbm_co_discard_wait(struct qbm_image *image,
                            const struct qbm_ticket *ticket,
                            struct qbm_error *error);

/*
 As qbm_co_writev_end(), for a discard.
 */
void qbm_co_discard_end(struct qbm_image *image, const struct qbm_ticket *ticket);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* QBM_H */
