// Package sqlitejournal keeps the pending writes of a write-behind cache in a SQLite file of their own, so that they
// survive the process.
//
// # Guarantees
//
//   - A write that [cache.WriteBehind] has accepted is on disk: its transaction was flushed (write-ahead log, synchronous
//     FULL), so that it survives the loss of the process, of the operating system and of power, as far as the disk keeps
//     its promise to flush.
//   - The file holds at most one write of a key, the newest; it does not grow with the number of writes.
//   - One process at a time has a journal open. A second Open of the file returns [ErrInUse]. The lock is SQLite's own lock
//     on the file, which the operating system releases when the process ends, however it ends.
//   - A key or a value that does not survive its encoding is refused, and not recorded as something else.
//
// # Usage
//
//	journal, err := sqlitejournal.Open[string, Profile]("profiles.journal")
//	...
//	defer journal.Close()
//	profiles, err := cache.OpenWriteBehind(ctx, journal, loadProfile, saveProfiles, cache.Config{}, cache.WriteBehindConfig{})
//	...
//	defer profiles.Close(deadline) // before the journal
//
// Each cache has a file of its own, which no other program should open meanwhile, on a disk of this machine: the locks of
// network file systems cannot be relied upon. A service that is replaced by its next version opens the journal when the
// old process has ended; until then it gets ErrInUse and tries again.
//
// The settings follow the SQLite documentation of write-ahead logging (sqlite.org/wal.html) and of the exclusive locking mode
// (sqlite.org/pragma.html#pragma_locking_mode).
package sqlitejournal
