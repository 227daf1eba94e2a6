package main

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

const bankBodyLimit = 64 << 10

// A bank is the outside world: a company that charges cards by HTTP, keeps honest books, and is often hard to reach. What it
// has answered 2xx, and what it did before a reply was lost, is committed.
//
//	PUT  /charges/{key}       200 charged, 402 declined, 409 voided, 422 the key was used for something else
//	POST /charges/{key}/void  200: gives back all that is left of the charge, or refuses one that has yet to come
//	PUT  /refunds/{key}       200, 409 more than is left of the charge, 422 as above
//
// Each is idempotent by its key. Safe for concurrent use.
type bank struct {
	db       *sql.DB
	dialect  dialect
	schedule *faults
	mux      *http.ServeMux

	served, slow, unavailable, resets, lostReplies, declined atomic.Int64
}

// bankStats counts requests by what became of them, since the bank was made. A slow one that is answered counts as served
// too.
type bankStats struct {
	served, slow, unavailable, resets, lostReplies, declined, outages int
}

// newBank is the bank with its books in db, which holds the tables of bankSchema. The caller closes db.
func newBank(db *sql.DB, d dialect, schedule *faults) *bank {
	b := &bank{db: db, dialect: d, schedule: schedule, mux: http.NewServeMux()}
	for pattern, op := range map[string]bankOp{
		"PUT /charges/{key}":       b.charge,
		"POST /charges/{key}/void": b.void,
		"PUT /refunds/{key}":       b.refund,
	} {
		b.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { b.serve(w, r, op) })
	}
	return b
}

func (b *bank) ServeHTTP(w http.ResponseWriter, r *http.Request) { b.mux.ServeHTTP(w, r) }

func (b *bank) stats() bankStats {
	return bankStats{
		served:      int(b.served.Load()),
		slow:        int(b.slow.Load()),
		unavailable: int(b.unavailable.Load()),
		resets:      int(b.resets.Load()),
		lostReplies: int(b.lostReplies.Load()),
		declined:    int(b.declined.Load()),
		outages:     b.schedule.outageCount(),
	}
}

// A bankOp changes the books in tx. lost is 1 when the reply is going to be cut, which the row it writes remembers.
type bankOp func(ctx context.Context, tx *sql.Tx, asked bankOrder, lost int) (bankAnswer, error)

type bankOrder struct {
	key       string
	OrderID   string `json:"order_id"`
	ChargeKey string `json:"charge_key"`
	Amount    int    `json:"amount_pence"`
}

type bankAnswer struct {
	code    int
	changed bool   // the books are not what they were
	Outcome string `json:"outcome,omitempty"`
	Error   string `json:"error,omitempty"`
}

func (b *bank) serve(w http.ResponseWriter, r *http.Request, op bankOp) {
	// The body is read first: only then does the server notice a client that leaves.
	asked, refusal := readBankOrder(w, r)
	if refusal.code != 0 {
		refusal.write(w)
		return
	}
	card, delay := b.schedule.deal()
	if card != noFault && card != lostReplyFault && !b.misbehave(w, r, card, delay) {
		return
	}
	answer, err := b.book(r.Context(), asked, op, card == lostReplyFault)
	switch {
	case err != nil:
		bankAnswer{code: http.StatusInternalServerError, Error: err.Error()}.write(w)
	case card == lostReplyFault && answer.changed:
		b.lostReplies.Add(1)
		cutConnection(w)
	case card == lostReplyFault:
		b.resets.Add(1)
		cutConnection(w)
	default:
		b.served.Add(1)
		answer.write(w)
	}
}

// misbehave plays a fault that comes before the effect and reports whether the request goes on.
func (b *bank) misbehave(w http.ResponseWriter, r *http.Request, card fault, delay time.Duration) bool {
	switch card {
	case slowFault:
		b.slow.Add(1)
		select {
		case <-time.After(delay):
			return true
		case <-r.Context().Done():
			return false
		}
	case unavailableFault:
		b.unavailable.Add(1)
		w.Header().Set("Retry-After", "1")
		bankAnswer{code: http.StatusServiceUnavailable, Error: "the bank is closed for a moment"}.write(w)
	default:
		b.resets.Add(1)
		cutConnection(w)
	}
	return false
}

func (b *bank) book(ctx context.Context, asked bankOrder, op bankOp, cut bool) (bankAnswer, error) {
	lost := 0
	if cut {
		lost = 1
	}
	tx, err := b.db.BeginTx(ctx, nil)
	if err != nil {
		return bankAnswer{}, err
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	if err := b.dialect.lock(ctx, tx, cmp.Or(asked.ChargeKey, asked.key)); err != nil {
		return bankAnswer{}, err
	}
	answer, err := op(ctx, tx, asked, lost)
	if err != nil {
		return bankAnswer{}, err
	}
	if err := tx.Commit(); err != nil {
		return bankAnswer{}, err
	}
	if answer.changed && answer.code == http.StatusPaymentRequired {
		b.declined.Add(1)
	}
	return answer, nil
}

func (b *bank) charge(ctx context.Context, tx *sql.Tx, o bankOrder, lost int) (bankAnswer, error) {
	if o.OrderID == "" || o.Amount <= 0 || o.ChargeKey != "" {
		return bankInvalid("a charge has an order_id, an amount_pence above 0 and nothing else"), nil
	}
	held, err := findCharge(ctx, tx, o.key)
	if err != nil {
		return bankAnswer{}, err
	}
	if held.outcome == "" {
		held = bankCharge{orderID: o.OrderID, amount: o.Amount, outcome: "charged"}
		if b.schedule.declines(o.OrderID) {
			held.outcome = "declined"
		}
		answer := held.answer()
		answer.changed = true
		_, err := tx.ExecContext(ctx, `INSERT INTO charges (key, order_id, amount_pence, outcome, lost_replies) VALUES ($1, $2, $3, $4, $5)`,
			o.key, held.orderID, held.amount, held.outcome, lost)
		return answer, err
	}
	if held.outcome != "voided" && (held.orderID != o.OrderID || held.amount != o.Amount) {
		return bankInvalid("the key %q is that of a charge of %d pence for order %q", o.key, held.amount, held.orderID), nil
	}
	if held.undone {
		held.outcome = "voided" // it was charged once; to say so now would be to sell what has been paid back
	}
	return held.answer(), nil
}

func (b *bank) void(ctx context.Context, tx *sql.Tx, o bankOrder, lost int) (bankAnswer, error) {
	held, err := findCharge(ctx, tx, o.key)
	voided := bankAnswer{code: http.StatusOK, Outcome: "voided"}
	switch {
	case err != nil:
		return bankAnswer{}, err
	case held.outcome == "":
		_, err = tx.ExecContext(ctx, `INSERT INTO charges (key, order_id, amount_pence, outcome, lost_replies) VALUES ($1, '', 0, 'voided', $2)`, o.key, lost)
	case held.outcome == "charged" && !held.undone:
		_, err = tx.ExecContext(ctx, `INSERT INTO refunds (key, order_id, amount_pence, lost_replies) VALUES ($1, $2, $3, $4)`,
			"void/"+o.key, held.orderID, held.left(), lost)
	default: // declined or undone already
		return voided, nil
	}
	voided.changed = true
	return voided, err
}

func (b *bank) refund(ctx context.Context, tx *sql.Tx, o bankOrder, lost int) (bankAnswer, error) {
	if o.OrderID == "" || o.Amount <= 0 || o.ChargeKey == "" || strings.HasPrefix(o.key, "void/") {
		return bankInvalid(`a refund has an order_id, a charge_key, an amount_pence above 0, and a key that does not begin with "void/"`), nil
	}
	done := bankAnswer{code: http.StatusOK, Outcome: "refunded"}
	var orderID string
	var amount int
	switch err := tx.QueryRowContext(ctx, `SELECT order_id, amount_pence FROM refunds WHERE key = $1`, o.key).Scan(&orderID, &amount); {
	case err == nil && (orderID != o.OrderID || amount != o.Amount):
		return bankInvalid("the key %q is that of a refund of %d pence for order %q", o.key, amount, orderID), nil
	case err == nil:
		return done, nil
	case !errors.Is(err, sql.ErrNoRows):
		return bankAnswer{}, err
	}
	held, err := findCharge(ctx, tx, o.ChargeKey)
	if err != nil {
		return bankAnswer{}, err
	}
	if held.outcome != "charged" || held.orderID != o.OrderID || o.Amount > held.left() {
		return bankAnswer{code: http.StatusConflict, Error: fmt.Sprintf("order %q: %d pence is more than was charged and not yet refunded", o.OrderID, o.Amount)}, nil
	}
	done.changed = true
	_, err = tx.ExecContext(ctx, `INSERT INTO refunds (key, order_id, amount_pence, lost_replies) VALUES ($1, $2, $3, $4)`, o.key, o.OrderID, o.Amount, lost)
	return done, err
}

// A bankCharge is a charge as the books have it; the zero value when there is none.
type bankCharge struct {
	orderID          string
	amount, refunded int
	outcome          string
	undone           bool
}

// left is what a refund may still give back.
func (c bankCharge) left() int { return c.amount - c.refunded }

func (c bankCharge) answer() bankAnswer {
	code := map[string]int{"charged": http.StatusOK, "declined": http.StatusPaymentRequired, "voided": http.StatusConflict}[c.outcome]
	return bankAnswer{code: code, Outcome: c.outcome}
}

func findCharge(ctx context.Context, tx *sql.Tx, key string) (bankCharge, error) {
	var c bankCharge
	err := tx.QueryRowContext(ctx, `SELECT order_id, amount_pence, outcome,
		(SELECT coalesce(sum(amount_pence), 0) FROM refunds WHERE refunds.order_id = charges.order_id),
		EXISTS (SELECT 1 FROM refunds WHERE refunds.key = 'void/' || charges.key)
		FROM charges WHERE key = $1`, key).Scan(&c.orderID, &c.amount, &c.outcome, &c.refunded, &c.undone)
	if errors.Is(err, sql.ErrNoRows) {
		return bankCharge{}, nil
	}
	return c, err
}

// readBankOrder reads what is asked; its answer is a refusal when it has a code.
func readBankOrder(w http.ResponseWriter, r *http.Request) (bankOrder, bankAnswer) {
	asked := bankOrder{key: r.PathValue("key")}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bankBodyLimit))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return asked, bankAnswer{code: http.StatusRequestEntityTooLarge, Error: "the body is larger than 64 kB"}
	}
	if err == nil && r.Method == http.MethodPut {
		err = asked.decode(body)
	}
	if err != nil {
		return asked, bankAnswer{code: http.StatusBadRequest, Error: err.Error()}
	}
	return asked, bankAnswer{}
}

func (o *bankOrder) decode(body []byte) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(o); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("there is more than one JSON value")
	}
	return nil
}

func bankInvalid(format string, args ...any) bankAnswer {
	return bankAnswer{code: http.StatusUnprocessableEntity, Error: fmt.Sprintf(format, args...)}
}

func (a bankAnswer) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(a.code)
	_ = json.NewEncoder(w).Encode(a) // the client has left
}

// cutConnection resets the connection, so that the client sees no end of stream but an error.
func cutConnection(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // the server's own way to drop a request
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
