package rabbitpubsub_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/rabbitmq/rabbitpubsub"
	"github.com/backstay-go/backstay/pubsub"
)

// authority is a certificate authority of this process.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority() (*authority, error) {
	a := &authority{}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	template := certificate("bstest authority")
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	a.cert, err = x509.ParseCertificate(der)
	return a, err
}

func certificate(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour)}
}

// write leaves ca.pem, and the server.pem and server.key of a server on the loopback address, in dir.
func (a *authority) write(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := certificate("bstest server")
	template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	cert, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	for name, block := range map[string]*pem.Block{
		"ca.pem":     {Type: "CERTIFICATE", Bytes: a.cert.Raw},
		"server.pem": {Type: "CERTIFICATE", Bytes: cert},
		"server.key": {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// tlsURL is that of the server's port for encrypted connections.
func (n *node) tlsURL() string { return fmt.Sprintf("amqps://guest:guest@127.0.0.1:%d", n.tlsPort) }

// Encrypted connections carry messages when the server's certificate is that of an authority that the client knows, by an
// option or by the URL.
func encryptedConnection(t *testing.T, n *node) {
	pass := func(t *testing.T, d *driver) {
		t.Helper()
		r := open(t, d)
		publish(t, d, message("1", "k"))
		got := receive(t, r, 1)
		require.Equal(t, "1", got[0].ID)
		settle(t, r, pubsub.Ack, got...)
		require.NoError(t, r.Close())
	}
	t.Run("option", func(t *testing.T) {
		pass(t, newTLSDriver(t, n, n.tlsURL(), rabbitpubsub.WithTLS(&tls.Config{RootCAs: n.authority.pool()})))
	})
	t.Run("URL", func(t *testing.T) {
		pass(t, newTLSDriver(t, n, n.tlsURL()+"/?cacertfile="+url.QueryEscape(filepath.Join(n.dir, "ca.pem"))))
	})
}

// newTLSDriver cleans up without encryption.
func newTLSDriver(t *testing.T, n *node, url string, opts ...rabbitpubsub.Option) *driver {
	t.Helper()
	d := newDriver(t, url, rabbitpubsub.Config{}, opts...)
	d.url = n.url()
	return d
}

// A server that cannot prove who it is gets no password, and the error says why.
func strangerRefused(t *testing.T, n *node) {
	other, err := newAuthority()
	require.NoError(t, err)
	refused := func(t *testing.T, cfg *tls.Config) error {
		t.Helper()
		_, err := rabbitpubsub.Open(soon(t), n.tlsURL(), rabbitpubsub.Config{Name: "orders"}, rabbitpubsub.WithTLS(cfg))
		require.ErrorContains(t, err, `rabbitpubsub "orders": connect: `)
		return err
	}
	t.Run("another authority", func(t *testing.T) {
		err := refused(t, &tls.Config{RootCAs: other.pool()})
		require.ErrorAs(t, err, new(x509.UnknownAuthorityError))
		require.ErrorContains(t, err, "certificate signed by unknown authority")
	})
	t.Run("another name", func(t *testing.T) {
		err := refused(t, &tls.Config{RootCAs: n.authority.pool(), ServerName: "elsewhere.example"})
		require.ErrorAs(t, err, new(x509.HostnameError))
		require.ErrorContains(t, err, "elsewhere.example")
	})
}
