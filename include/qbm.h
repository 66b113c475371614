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
 *   accepted if the unknown tail is zero, otherwise -E2BIG (as is one beyond 65,536); a size too small for the first
 *   version is -EINVAL. In structures that the library fills, it sets to zero what it does not know.
 * - Strings are NUL-terminated UTF-8 and stay the caller's. Paths are any bytes.
 * - Where a function does not say that a pointer may be NULL, NULL is -EINVAL; so are a bitmap's name that is not UTF-8 and a
 *   flag that is not listed.
 * - Offsets, lengths and sizes are in bytes.
 * - A handle may be used by several threads at once, except that nothing may run beside or after qbm_close().
 *   Nothing is kept per thread.
 * - After fork() only the process that opened a handle may use it: in any other, every function that takes one fails with
 *   -ECHILD and does nothing. The qbm_co_*_begin, _wait and _end functions of writes do not look; they must not be called
 *   there. qbm_close() frees the copy that the other process has (but for what another thread was using at the fork), and
 *   also returns -ECHILD. The image stays locked until the process that opened it closes it or ends, and in the latter case
 *   until no process has a copy. exec() closes one.
 * - "Blocks": may wait for a disk. All other functions write to the page cache at most; all but the _begin and _end
 *   functions of writes may have to wait for one that another thread has called on the same handle.
 * - "Durable": on stable storage when the function returns. Which crashes leave the bitmaps of an image that is active for
 *   writing usable is another matter: the image's durability says that.
 * - After an error a handle shows the state before the call, unless the function says otherwise. Where the system's error
 *   kept the descriptor from being written, it is open which of the two states a crash would leave, until a change or the
 *   close succeeds; no write is missed either way.
 * - The library prints nothing and installs no signal handler. A bug in it (a panic) returns -EIO with the reason in
 *   .message, and poisons the handle: every later call fails with -EIO, and qbm_close() leaves the image on disk as it is,
 *   marked in use if it was active for writing. Without memory it ends the process with abort() and a line on stderr.
 */

#ifndef QBM_H
#define QBM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 Version of this header, first part; qbm_version() tells that of the library.
 */
#define QBM_VERSION_MAJOR 0

/*
 Version of this header, second part.
 */
#define QBM_VERSION_MINOR 2

/*
 Version of this header, third part.
 */
#define QBM_VERSION_PATCH 0

/*
 Longest bitmap name in bytes, without the NUL.
 */
#define QBM_BITMAP_NAME_MAX 1023

/*
 Bitmaps that an image can have, inconsistent ones included.
 */
#define QBM_BITMAPS_MAX 4096

/*
 Smallest granularity in bytes.
 */
#define QBM_GRANULARITY_MIN 512

/*
 Largest granularity in bytes.
 */
#define QBM_GRANULARITY_MAX 2147483648

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
 What the descriptor stores, and if it stores nothing, QBM_PERSIST_BITMAPS_MARKED.
 */
#define QBM_PERSIST_BITMAPS_DEFAULT 0

/*
 A program that makes bitmaps in its memory, as QEMU does, stores those that it is told to store.
 */
#define QBM_PERSIST_BITMAPS_MARKED 1

/*
 It stores all that have a name.
 */
#define QBM_PERSIST_BITMAPS_ALL 2

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
 Active, and the activation found the image as the clean close before had left it: with the same generation as after an
 earlier close nobody has written to the image since that one.
 */
#define QBM_INFO_CONTINUED 32

/*
 The caller holds QEMU's locks on the descriptor already; take none.
 */
#define QBM_CREATE_NO_LOCK 1

/*
 -EEXIST if there is a file at the path, whatever it is.
 */
#define QBM_CREATE_EXCLUSIVE 2

/*
 Make the data image and not the descriptor, though only if that could be made, or the one that is there replaced.
 For a caller who has more to do to the data image (data_file_out tells its path), makes it durable and adopts it.
 */
#define QBM_CREATE_DATA_ONLY 4

/*
 data_file is no local file: it is stored and not looked at. Who opens the image has to know how to get there.
 */
#define QBM_CREATE_REMOTE_DATA 8

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
 Between qbm_bitmap_freeze() and qbm_bitmap_commit() or qbm_bitmap_abort().
 */
#define QBM_BITMAP_FROZEN 16

/*
 As qbm_bitmap_add().
 */
#define QBM_CHANGE_ADD 1

/*
 As qbm_bitmap_remove().
 */
#define QBM_CHANGE_REMOVE 2

/*
 As qbm_bitmap_set_recording().
 */
#define QBM_CHANGE_SET_RECORDING 3

/*
 Most user data of one bitmap, in bytes.
 */
#define QBM_USER_DATA_MAX 65536

/*
 The caller holds QEMU's locks on the descriptor already; take none.
 */
#define QBM_CHECK_NO_LOCK 1

/*
 Others may have the image open, even for writing; then little can be said of its bitmaps. Not with QBM_CHECK_REPAIR or
 QBM_CHECK_REPAIR_LEAKS.
 */
#define QBM_CHECK_SHARED 2

/*
 Mend what can be mended.
 */
#define QBM_CHECK_REPAIR 4

/*
 Remove files that nobody needs, findings of QBM_SEVERITY_LEAK, and mend nothing else. Beside QBM_CHECK_REPAIR it adds nothing.
 */
#define QBM_CHECK_REPAIR_LEAKS 8

/*
 Found by this library, but of a kind that this list does not have; the message tells.
 */
#define QBM_FINDING_OTHER 0

/*
 A crash tore the descriptor's text; the one that was to replace it is whole, and counts.
 */
#define QBM_FINDING_TORN_DESCRIPTOR 1

/*
 A replacement of the descriptor's text that nobody needs any more.
 */
#define QBM_FINDING_LEFTOVER_REPLACEMENT 2

/*
 The descriptor's checksum does not hold, or there is none: others write descriptors too.
 */
#define QBM_FINDING_EDITED_DESCRIPTOR 3

/*
 A member of the descriptor that can be ignored has a value that breaks a rule.
 */
#define QBM_FINDING_IGNORED_MEMBER 4

/*
 A session is on record, and nobody has the image open: its writer crashed.
 */
#define QBM_FINDING_STALE_SESSION 5

/*
 A session is on record, and whether somebody has the image open cannot be told.
 */
#define QBM_FINDING_IN_USE 6

/*
 The data image is not where it should be.
 */
#define QBM_FINDING_DATA_IMAGE_MISSING 7

/*
 The data image grew while the image was closed; its tail will be dirty.
 */
#define QBM_FINDING_DATA_IMAGE_GREW 8

/*
 Somebody vouched for a data image that had been changed behind QBM's back.
 */
#define QBM_FINDING_DATA_IMAGE_VOUCHED_FOR 9

/*
 A bitmap that breaks a rule of the format.
 */
#define QBM_FINDING_INVALID_ENTRY 10

/*
 A bitmap that is listed as inconsistent.
 */
#define QBM_FINDING_INCONSISTENT 11

/*
 A bitmap that cannot be trusted for what became of the image: crash, change of the data image, damaged seal.
 */
#define QBM_FINDING_NOT_TRUSTED 12

/*
 A bitmap file that is missing or cannot be read.
 */
#define QBM_FINDING_FILE_UNREADABLE 13

/*
 A bitmap file that is something else too: the descriptor, the data image, another bitmap's file.
 */
#define QBM_FINDING_FILE_NOT_OWN 14

/*
 A bitmap file of the wrong length.
 */
#define QBM_FINDING_FILE_SIZE 15

/*
 A bitmap file that is not as it was closed.
 */
#define QBM_FINDING_CHECKSUM 16

/*
 The data image grew by more than can be marked.
 */
#define QBM_FINDING_GREW_TOO_FAR 17

/*
 Bits beyond the end of the disk are set in a dirty bitmap's file. They count for nothing.
 */
#define QBM_FINDING_PADDING 18

/*
 Bits beyond the end of the disk are set in the allocation bitmap's file.
 */
#define QBM_FINDING_ALLOCATION_BEYOND_END 19

/*
 A bitmap file that no bitmap has, left by a crash.
 */
#define QBM_FINDING_ORPHAN_FILE 20

/*
 Worth knowing; nothing is wrong.
 */
#define QBM_SEVERITY_INFORMATION 0

/*
 Files that nobody needs.
 */
#define QBM_SEVERITY_LEAK 1

/*
 Something is not as it must be.
 */
#define QBM_SEVERITY_CORRUPTION 2

/*
 qbm_check() with QBM_CHECK_REPAIR mends it. A bitmap that it costs is then listed as inconsistent, and stays lost.
 */
#define QBM_FINDING_REPAIRABLE 1

/*
 It was mended.
 */
#define QBM_FINDING_REPAIRED 2

/*
 For qbm_zero(): the range's space may be given back.
 */
#define QBM_ZERO_MAY_UNMAP 1

/*
 A _begin function's way to say: call the _wait function of the same group before the data moves.
 */
#define QBM_MUST_WAIT 1

/*
 An open image; opaque.
 */
typedef struct qbm_image qbm_image;

/*
 What qbm_check() found; opaque. It is memory that nothing changes: any thread may read it, and a forked process its copy.
 */
typedef struct qbm_report qbm_report;

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
   The data image as the descriptor names it, resolved against its directory; any bytes, as in a path.
   */
  char data_file[4096];
  /*
   QEMU's name of its format.
   */
  char data_format[64];
  /*
   QBM_DURABILITY_CLOSE or _PROCESS: what an activation has that gives none.
   */
  uint32_t stored_durability;
  /*
   QBM_PERSIST_BITMAPS_MARKED or _ALL, as stored. The library only keeps it: who makes bitmaps heeds it.
   */
  uint32_t persist_bitmaps;
  /*
   How many sessions that changed something have ended cleanly, as recorded.
   */
  uint64_t generation;
} qbm_info;

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
   Size of the disk, rounded up to 512; of an adopted image, its present size, and 0 stands for that of a raw local file.
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
  /*
   QBM_PERSIST_BITMAPS_*; stored unless it is the default.
   */
  uint32_t persist_bitmaps;
  /*
   0.
   */
  uint32_t reserved;
} qbm_create_args;

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
   the library to look at; then a change behind its back is noticed by the size only. A path is to hold until
   qbm_inactivate().
   */
  const char *data_file;
} qbm_activate_args;

/*
 Stored defaults that are to change.
 */
typedef struct qbm_defaults {
  /*
   sizeof(qbm_defaults), set by the caller.
   */
  size_t size;
  /*
   QBM_DURABILITY_*: what an activation has that gives none. With _DEFAULT what is stored stays.
   */
  uint32_t durability;
  /*
   QBM_PERSIST_BITMAPS_*; with _DEFAULT what is stored stays.
   */
  uint32_t persist_bitmaps;
} qbm_defaults;

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
 One of the changes of qbm_bitmap_change_several().
 */
typedef struct qbm_bitmap_change {
  /*
   sizeof(qbm_bitmap_change), the same in all of an array.
   */
  size_t size;
  /*
   The bitmap's name. Only read.
   */
  const char *name;
  /*
   QBM_CHANGE_ADD: a power of two from 512 to 2 GiB. Otherwise 0.
   */
  uint64_t granularity_bytes;
  /*
   QBM_CHANGE_*.
   */
  uint32_t action;
  /*
   QBM_CHANGE_ADD: QBM_BITMAP_RECORDING and QBM_BITMAP_ALL_DIRTY, or 0. QBM_CHANGE_SET_RECORDING: QBM_BITMAP_RECORDING
   or 0. Otherwise 0.
   */
  uint32_t flags;
} qbm_bitmap_change;

/*
 How an image is checked.
 */
typedef struct qbm_check_args {
  /*
   sizeof(qbm_check_args), set by the caller.
   */
  size_t size;
  /*
   QBM_CHECK_*.
   */
  uint32_t flags;
  /*
   0.
   */
  uint32_t reserved;
  /*
   The data image's size now. 0: the file's length if it is a raw regular file, otherwise what was recorded last.
   */
  uint64_t image_size_bytes;
  /*
   As in qbm_activate_args.
   */
  const char *data_file;
} qbm_check_args;

/*
 A report in numbers. leaks_count and corruptions_count are 0: nothing is wrong, or all of it was repaired.
 */
typedef struct qbm_report_summary {
  /*
   sizeof(qbm_report_summary), set by the caller.
   */
  size_t size;
  /*
   All findings, repaired ones included.
   */
  uint32_t findings_count;
  /*
   Findings of QBM_SEVERITY_LEAK that are not repaired.
   */
  uint32_t leaks_count;
  /*
   Findings of QBM_SEVERITY_CORRUPTION that are not repaired.
   */
  uint32_t corruptions_count;
  /*
   Bitmaps, inconsistent ones included.
   */
  uint32_t bitmaps_count;
  /*
   Bitmaps that can be used; when repaired, afterwards.
   */
  uint32_t usable_count;
  /*
   0.
   */
  uint32_t reserved;
} qbm_report_summary;

/*
 One thing that was found.
 */
typedef struct qbm_finding {
  /*
   sizeof(qbm_finding), set by the caller.
   */
  size_t size;
  /*
   QBM_FINDING_OTHER, _TORN_DESCRIPTOR, ...
   */
  uint32_t kind;
  /*
   QBM_SEVERITY_*.
   */
  uint32_t severity;
  /*
   QBM_FINDING_REPAIRABLE, _REPAIRED.
   */
  uint32_t flags;
  /*
   0.
   */
  uint32_t reserved;
  /*
   The bitmap concerned, or "". NUL-terminated; the name of an entry that breaks the rules is cut where it does not fit.
   */
  char bitmap[1024];
  /*
   The file concerned, where it is not the bitmap's or the descriptor, or "". NUL-terminated; any bytes, as in a path;
   cut where it does not fit.
   */
  char file[4096];
  /*
   One line of UTF-8 for a person, NUL-terminated; cut if it is longer. Its wording is not part of the ABI.
   */
  char message[2040];
} qbm_finding;

/*
 Stands for one write between _begin and _end. Its content is the library's.
 */
typedef struct qbm_ticket {
  /*
   Not to be looked at.
   */
  uint64_t opaque[4];
} qbm_ticket;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 The library's version, such as "0.2.0". Static; never freed.
 */
const char *qbm_version(void);

/*
 Whether buf, the first len bytes of a file (512, or all of a shorter one), begins a QBM descriptor: 100 or 0, as
 QEMU's bdrv_probe scores. NULL scores 0.
 */
int32_t qbm_probe(const void *buf,
                  size_t len);

/*
 Tells what an image is made of, and its state.

 Errors: -EINVAL for NULL or a wrong size, -ENAMETOOLONG when a name does not fit.
 */
int32_t qbm_get_info(const struct qbm_image *image, struct qbm_info *info, struct qbm_error *error);

/*
 Takes the oldest line for the operator's log that was not taken yet: what recovery did, why a bitmap is inconsistent.

 Of notices that nobody takes, the latest 256 are kept.

 Returns 1 and fills buf (NUL-terminated, cut if need be); 0 when there is none; -EINVAL for NULL.
 */
int32_t qbm_take_notice(struct qbm_image *image,
                        char *buf,
                        size_t buf_size);

/*
 Makes an image: the descriptor at path and, unless one is adopted, a data image beside it.

 A file at path is replaced only if it is empty or a QBM descriptor; what that named is left alone: bitmaps of an image that
 was there are lost. With QBM_CREATE_EXCLUSIVE nothing is replaced. After an error nothing new is left. Blocks.

 Returns 0; 1 when the data image's derived name was taken (that file is left alone) and another was used.
 Errors: -EEXIST (path is something else, or with QBM_CREATE_EXCLUSIVE anything), -EINVAL, -EFBIG, -EAGAIN (in use), or the system's.
 */
int32_t qbm_create(const char *path,
                   const struct qbm_create_args *args,
                   struct qbm_error *error);

/*
 Opens and checks a descriptor. Neither the data image nor any bitmap file is opened. Blocks.

 Without QBM_OPEN_NO_LOCK and QBM_OPEN_SHARED the locks are taken that QEMU takes, for as long as the handle is open.
 On success *out is a handle to be given to qbm_close(); otherwise it is NULL.
 Errors: -EINVAL (NULL, flags, reserved, or a rule of the format is broken), -ENOTSUP, -EFBIG, -EAGAIN (in use), or the
 system's.
 */
int32_t qbm_open(const char *path,
                 const struct qbm_open_args *args,
                 struct qbm_image **out,
                 struct qbm_error *error);

/*
 Recovers, loads the bitmaps and, unless read-only, begins a session: from then on writes are recorded. Blocks.

 What is wrong with a bitmap makes that bitmap inconsistent and leaves a notice; it is no error.
 Errors: -EINVAL (active already; a size of 0, though the data image has another), -EFBIG, or the system's, such as -ENOSPC
 or -EROFS: the session cannot be written.
 With QBM_ACTIVATE_DATA also -ENOTSUP (the data image is not raw), -EAGAIN (it is open elsewhere), -EISDIR, -EINVAL (it
 is neither a regular file nor a block device, or it is the descriptor or a bitmap file).
 */
int32_t qbm_activate(struct qbm_image *image,
                     const struct qbm_activate_args *args,
                     struct qbm_error *error);

/*
 Writes what the bitmap files lack, makes it durable, and ends the session. No write may be in flight. Blocks.

 The handle stays open and may be activated again. An image that is not active: 0. If the path of a raw data image that is
 a regular file leads to another file by now, or to none, all bitmaps are inconsistent; that is no error, and leaves a
 notice.
 Errors: the system's. A bitmap that could not be stored is inconsistent then, the others are fine; if the session
 could not be ended, the image stays in use on disk, as after a crash. A data image that the library opened could not be
 made durable: every bitmap is inconsistent.
 */
int32_t qbm_inactivate(struct qbm_image *image,
                       struct qbm_error *error);

/*
 Inactivates, then frees the handle with its notices, whatever the result. NULL: does nothing and returns 0. Blocks.

 Errors: as qbm_inactivate(); -EIO for a poisoned handle, whose image is left in use on disk; -ECHILD in a process that
 did not open it: memory and descriptors are freed, and nothing changes on disk or for the process that did.
 */
int32_t qbm_close(struct qbm_image *image,
                  struct qbm_error *error);

/*
 Changes what the descriptor stores, all of it at once; a crash leaves the old or the new. Durable when this returns.

 The image need not be active, but must not be open or active for reading only. The durability in force stays what it is
 until the next activation. Blocks.

 Errors: -EINVAL (NULL, a value), -EROFS, -EFBIG (the descriptor's cap), or the system's: what is stored is as it was.
 */
int32_t qbm_set_defaults(struct qbm_image *image,
                         const struct qbm_defaults *defaults,
                         struct qbm_error *error);

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
 Errors: -ENOENT, -EROFS, -EBUSY (frozen), or the system's.
 */
int32_t qbm_bitmap_remove(struct qbm_image *image, const char *name, struct qbm_error *error);

/*
 Turns recording on or off; durable when this returns. Turned on, no later write can miss the bitmap. Blocks.

 Errors: -ENOENT (also for an inconsistent bitmap), -EROFS, -EBUSY (frozen), or the system's.
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
 Gives a bitmap another name, 1 to QBM_BITMAP_NAME_MAX bytes; durable when this returns. Its file keeps the name that it
 has. The name that it has already: 0. Blocks.

 Errors: -ENOENT (also for an inconsistent bitmap), -EEXIST, -ENAMETOOLONG, -EINVAL (NULL or an empty name), -EFBIG (the
 descriptor's cap), -EROFS, -EBUSY (frozen), or the system's. The bitmap has its old name then.
 */
int32_t qbm_bitmap_rename(struct qbm_image *image,
                          const char *from,
                          const char *to,
                          struct qbm_error *error);

/*
 Makes a bitmap clean, at once; a crash leaves all of its bits or none. Durable when this returns. Writes in flight stay
 in it, so this is safe beside them. Blocks.

 Errors: -ENOENT (also for an inconsistent bitmap), -EINVAL for NULL, -EROFS, -EBUSY (frozen), or the system's: the bitmap
 is as it was then.
 */
int32_t qbm_bitmap_clear(struct qbm_image *image,
                         const char *name,
                         struct qbm_error *error);

/*
 Adds to target what is dirty in any of the sources_count bitmaps that sources names, at once; a crash leaves all of it or
 none. Granularities may differ: ranges are rounded outwards to the target's. The sources stay as they are; the target may
 be one of them. sources may be NULL if sources_count is 0. Durable when this returns. Safe beside writes in flight. Blocks.

 Errors: -ENOENT when one of the bitmaps does not exist or is inconsistent, -EINVAL for NULL, -EROFS, -EBUSY (one is
 frozen), -EIO when one has missed a write: that one is inconsistent then. Or the system's: the target is as it was.
 */
int32_t qbm_bitmap_merge(struct qbm_image *image,
                         const char *target,
                         const char *const *sources,
                         size_t sources_count,
                         struct qbm_error *error);

/*
 Gives a bitmap another granularity, a power of two from 512 to 2 GiB, at once; a crash leaves the old or the new one.
 Dirty ranges are rounded outwards to it. Durable when this returns. Safe beside writes in flight. Blocks.

 Errors: -ENOENT (also for an inconsistent bitmap), -EINVAL (NULL, granularity), -EFBIG (too small a granularity for the
 disk), -EROFS, -EBUSY (frozen), -EIO when it has missed a write: it is inconsistent then. Or the system's: the bitmap
 is as it was.
 */
int32_t qbm_bitmap_set_granularity(struct qbm_image *image,
                                   const char *name,
                                   uint64_t granularity_bytes,
                                   struct qbm_error *error);

/*
 Makes changes_count changes with one replacement of the descriptor: all of them or, after an error or a crash, none. No
 bitmap may be in two of them. Durable when this returns, in about the time of one change. changes may be NULL if
 changes_count is 0. Blocks.

 Errors: those of the single changes, -ENOENT, -EEXIST, -ENAMETOOLONG, -EINVAL (also for NULL, a bitmap that is named twice,
 an unknown action), -EFBIG (caps), -EROFS, -EBUSY (frozen), or the system's. Nothing has changed then.
 */
int32_t qbm_bitmap_change_several(struct qbm_image *image,
                                  const struct qbm_bitmap_change *changes,
                                  size_t changes_count,
                                  struct qbm_error *error);

/*
 Copies what the bitmap's user keeps with it into buf, and its size in bytes to *data_size; no NUL is added. buf may be
 NULL if buf_size is 0. Works without activation, and for an inconsistent bitmap as far as it can be made out. Memory only.

 Returns 1; 0 when there is none, with *data_size 0. User data of no bytes is not none.
 Errors: -ERANGE when it does not fit, with *data_size what is needed and buf untouched; -ENOENT, -EINVAL for NULL.
 */
int32_t qbm_bitmap_get_user_data(const struct qbm_image *image,
                                 const char *name,
                                 void *buf,
                                 size_t buf_size,
                                 size_t *data_size,
                                 struct qbm_error *error);

/*
 Keeps up to QBM_USER_DATA_MAX bytes of any content with a bitmap; data that is NULL (data_size is 0 then) removes what
 there is. Durable when this returns. Blocks.

 Errors: -ENOENT (also for an inconsistent bitmap), -EFBIG (that limit, or the descriptor's cap), -EINVAL for NULL, -EROFS,
 or the system's: what was kept before is kept then.
 */
int32_t qbm_bitmap_set_user_data(struct qbm_image *image,
                                 const char *name,
                                 const void *data,
                                 size_t data_size,
                                 struct qbm_error *error);

/*
 Counts what is dirty: bytes in dirty granules, the last one cut at the end of the disk. Memory only.

 Errors: -ENOENT when no such bitmap is loaded, -EINVAL for NULL.
 */
int32_t qbm_bitmap_count(const struct qbm_image *image,
                         const char *name,
                         uint64_t *dirty_bytes,
                         struct qbm_error *error);

/*
 Finds the first dirty extent that ends after offset: it begins there or later, is as long as it can be, and ends with the
 disk at the latest. Memory only.

 To walk over a bitmap, begin at 0 and go on at *extent_offset + *extent_bytes; what becomes dirty behind that point
 meanwhile is not seen.
 Returns 1, 0 when all is clean from there on; then nothing is stored. Errors: -ENOENT when no such bitmap is loaded,
 -EINVAL for NULL.
 */
int32_t qbm_bitmap_next_extent(const struct qbm_image *image,
                               const char *name,
                               uint64_t offset,
                               uint64_t *extent_offset,
                               uint64_t *extent_bytes,
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
 Blocks, if a change of the descriptor failed before.

 Errors: as qbm_bitmap_load_bits(), -EROFS, -EBUSY (frozen), or the system's; the file then holds old bits, new bits, or
 a mixture.
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
 the image's durability. Blocks, if a change of the descriptor failed before.

 Errors: as qbm_bitmap_load_bits(), -EROFS, or the system's; the file then holds old bits, new bits, or a mixture.
 */
int32_t qbm_bitmap_merge_bits(struct qbm_image *image,
                              const char *name,
                              uint64_t offset,
                              uint64_t bytes,
                              const void *bits,
                              size_t bits_size,
                              struct qbm_error *error);

/*
 Marks [offset, offset + bytes) dirty, rounded outwards to granules, whether the bitmap records or not. As durable as a
 guest's write is at the image's durability. Safe beside writes in flight. Blocks when it fails,
 or if a change of the descriptor failed before.

 Errors: -ENOENT when no such bitmap is loaded, -EINVAL (NULL, a range beyond the disk), -EROFS; -EIO when the range could
 not be recorded: the bitmap is inconsistent then, on disk too.
 */
int32_t qbm_bitmap_mark_dirty(struct qbm_image *image,
                              const char *name,
                              uint64_t offset,
                              uint64_t bytes,
                              struct qbm_error *error);

/*
 Freezes what a bitmap says, to be copied: until qbm_bitmap_commit() or qbm_bitmap_abort(), what reads its bits shows it
 as it is now, and QBM_BITMAP_FROZEN is set. Later writes are kept for afterwards; writes in flight count as later ones.

 Nothing changes on disk: the bitmap there goes on recording. A crash, and a clean close, which ends the freeze as
 qbm_bitmap_abort() does, leave one that has all of the frozen bits and all later ones, to the image's durability.

 While it is frozen, -EBUSY is what qbm_bitmap_remove(), _rename(), _clear(), _set_recording(), _set_granularity(),
 _store_bits(), and _merge() from it or to it return. What is marked or added comes as later writes do. A resize does
 not end the freeze: what the disk gains was written later. qbm_bitmap_set_inconsistent() ends it.
 Errors: -ENOENT when no such bitmap is loaded, -EROFS, -EBUSY when it is frozen already, -EIO when it has missed a
 write: it is inconsistent then.
 */
int32_t qbm_bitmap_freeze(struct qbm_image *image,
                          const char *name,
                          struct qbm_error *error);

/*
 Says that what was frozen before offset has been copied, and is safe there. offset is rounded down to a granule; one at
 or beyond the end of the disk stands for all of it. Those blocks leave what is frozen, and are clean but where they
 were written since the freeze; the bitmap stays frozen. Durable when this returns. Blocks.

 A copy that is interrupted after this, by whatever the image's durability survives, goes on with another
 qbm_bitmap_freeze(): what is dirty then is what it lacks.
 Errors: -ENOENT when no such bitmap is loaded, -EROFS, -EINVAL when it is not frozen, -EIO when it has missed a write:
 it is inconsistent then; or the system's: nothing has changed then, but a crash may leave the blocks clean, until
 qbm_bitmap_abort() or another change of the descriptor has returned 0.
 */
int32_t qbm_bitmap_checkpoint(struct qbm_image *image,
                              const char *name,
                              uint64_t offset,
                              struct qbm_error *error);

/*
 Says that all that was frozen has been copied, and is safe there: what is dirty now was written since the freeze. The
 bitmap is no longer frozen. Durable when this returns. Blocks.

 Errors: as qbm_bitmap_checkpoint(). The bitmap is still frozen then, unless it is inconsistent.
 */
int32_t qbm_bitmap_commit(struct qbm_image *image,
                          const char *name,
                          struct qbm_error *error);

/*
 Ends a freeze without a copy: what is still frozen and what was written since is dirty. Blocks, if a change of the
 descriptor failed before, such as qbm_bitmap_commit(): what that may have put on disk is taken back.

 Errors: -ENOENT when no such bitmap is loaded, -EROFS, -EINVAL when it is not frozen, or the system's: the bitmap is
 still frozen then.
 */
int32_t qbm_bitmap_abort(struct qbm_image *image,
                         const char *name,
                         struct qbm_error *error);

/*
 Looks for everything that is wrong with the image whose descriptor is at path. Reads every bitmap file, but not the data
 image, which is never written either. Blocks.

 Without QBM_CHECK_REPAIR and QBM_CHECK_REPAIR_LEAKS nothing is written. With the former, a crash is recovered from, what cannot be trusted is listed as
 inconsistent, and files that nobody needs are removed; no bitmap becomes trusted that is not; durable when this returns.
 On success, whatever was found, *out is a report to be given to qbm_report_free(); otherwise it is NULL.
 Errors: -EINVAL (NULL, flags, reserved, or a rule of the format is broken that makes the descriptor useless; no size is
 known), -ENOTSUP, -EFBIG, -EAGAIN (in use), -ENOENT (no descriptor; when repairing also: no data image), or the system's. What
 was repaired until then stays so.
 */
int32_t qbm_check(const char *path,
                  const struct qbm_check_args *args,
                  struct qbm_report **out,
                  struct qbm_error *error);

/*
 Tells a report in numbers.

 Errors: -EINVAL for NULL or a wrong size.
 */
int32_t qbm_report_get_summary(const struct qbm_report *report,
                               struct qbm_report_summary *summary,
                               struct qbm_error *error);

/*
 Copies finding number index, from 0, to *finding.

 Errors: -ENOENT past the last one, -EINVAL for NULL or a wrong size.
 */
int32_t qbm_report_get(const struct qbm_report *report,
                       uint32_t index,
                       struct qbm_finding *finding,
                       struct qbm_error *error);

/*
 Frees a report; nothing may use it beside or after that. NULL: does nothing.
 */
void qbm_report_free(struct qbm_report *report);

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
 durability says. buf must not change until this returns. The data is in the page cache when this returns: it survives the process, and a power cut after
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

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* QBM_H */
