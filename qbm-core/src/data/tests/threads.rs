// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many threads at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;

const THREADS_COUNT: u64 = 16;

#[test]
fn sixteen_threads_write_each_its_own() {
    let disk = Disk::new(THREADS_COUNT * MIB);
    let (image, data) = disk.begin();
    thread::scope(|scope| {
        for thread in 0..THREADS_COUNT {
            let (image, data) = (&image, &data);
            scope.spawn(move || {
                // Every second MiB, in pieces of 1 KiB that take turns.
                for step in 0..8 * 64 {
                    let offset = (step / 64) * 2 * MIB + (step % 64) * 16 * KIB + thread * KIB;
                    data.write(image, offset, &[thread as u8 + 1; 1024])
                        .unwrap();
                    let mut read = [0; 1024];
                    data.read(offset, &mut read).unwrap();
                    assert_eq!(read, [thread as u8 + 1; 1024]);
                }
            });
        }
    });
    data.inactivate(&image).unwrap();
    drop((image, data));
    let (image, _data) = disk.begin();
    let expected = (0..16 * 16).filter(|granule| granule / 16 % 2 == 0);
    assert_eq!(dirty(&image), expected.collect::<Vec<_>>());
    let content = disk.content();
    for (index, piece) in content.chunks(1024).enumerate() {
        let is_written = index / 1024 % 2 == 0;
        let expected = if is_written { index % 16 + 1 } else { 0 };
        assert!(piece.iter().all(|byte| usize::from(*byte) == expected));
    }
}

/// Sets a flag when it goes, also when a test fails: threads that wait for it must end.
struct Until<'a>(&'a AtomicBool);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn writes_and_resizes_do_not_overtake_each_other() {
    let disk = Disk::new(2 * MIB);
    let (image, data) = disk.begin();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..THREADS_COUNT {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    // Where it is beyond the disk it is refused; it never grows the file.
                    let _ = data.write(&image, 2 * MIB - 512, &[1; 512]);
                    let _ = data.read(2 * MIB - 512, &mut [0; 512]);
                }
            });
        }
        let _until = Until(&is_over);
        for _ in 0..50 {
            for size_bytes in [MIB, 2 * MIB] {
                data.resize(&image, size_bytes).unwrap();
                assert!(disk.content().len() as u64 <= size_bytes);
            }
        }
    });
    data.inactivate(&image).unwrap();
    drop((image, data));
    let (image, data) = disk.begin();
    assert_eq!(data.size_bytes(), 2 * MIB);
    assert!(dirty(&image).contains(&31));
}

#[test]
fn the_end_waits_for_what_moves() {
    let disk = Disk::new(MIB);
    for _ in 0..20 {
        let (image, data) = disk.begin();
        thread::scope(|scope| {
            for thread in 0..THREADS_COUNT {
                let (image, data) = (&image, &data);
                scope.spawn(move || {
                    let offset = thread * GRANULARITY;
                    while data.write(image, offset, &[1; 512]).is_ok() {}
                });
            }
            data.inactivate(&image).unwrap();
        });
        drop((image, data));
        let (image, data) = disk.begin();
        assert!(!is_inconsistent(&image), "the seal is of after the last");
        data.inactivate(&image).unwrap();
    }
}
