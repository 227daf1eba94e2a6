package sqlsaga

import (
	"context"
	"database/sql"
	"sync"
)

// prepared are the statements of every step, parsed once for each connection: parsing them costs as much as running them.
// They end with the database.
type prepared struct {
	mu   sync.Mutex
	done bool
	all  map[string]*sql.Stmt
}

// prepare parses the statements, outside of any transaction: the pool may have a single connection.
func (s *Store) prepare(ctx context.Context) error {
	p := &s.prepared
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done || !s.dialect.parses {
		return nil
	}
	if p.all == nil {
		p.all = map[string]*sql.Stmt{}
	}
	for _, text := range []string{s.stmts.create, s.stmts.step, s.stmts.hold, s.stmts.wait, s.stmts.end, s.stmts.event, s.stmts.claim} {
		if p.all[text] != nil {
			continue
		}
		stmt, err := s.db.PrepareContext(ctx, text)
		if err != nil {
			return err
		}
		p.all[text] = stmt
	}
	p.done = true
	return nil
}

// exec runs a statement in a transaction, prepared if it is one of those.
func (s *Store) exec(ctx context.Context, tx *sql.Tx, text string, args ...any) (sql.Result, error) {
	if stmt := s.prepared.all[text]; stmt != nil {
		return tx.StmtContext(ctx, stmt).ExecContext(ctx, args...)
	}
	return tx.ExecContext(ctx, text, args...)
}
