// Package keeper keeps the credentials of a portal or relay alive: it renews the
// certificate in time, takes the authorities that the domain trusts and the
// certificates that were revoked, and has all of it on disk.
//
// A Keeper owns the files: certificate and key, which become current together, and
// in the state folder the authorities (as the policy key signed them) and the
// revocations. What it holds in memory is [identity.Credentials], which every
// handshake looks into; so nothing that runs is touched by a renewal.
//
// # Renewal
//
// A portal or relay asks for a new certificate ([wire.Renew]) when two thirds of the life
// of its own and a random part of a tenth are over, and connects anew with it. [wire.Renewed]
// has the chain; [wire.RenewRefused] says why not, and what is held goes on. With
// [wire.ReasonWaiting] an operator has to sign first, where the key is, and Renewed follows when he
// has; whoever connects anew meanwhile asks anew. The request may be for a new key; until the
// server has seen that, permissions name either key.
//
// # Authorities
//
// [wire.Authorities] says which CAs the domain trusts, and the key that signs certificates
// now. It comes after Welcome and after each change, and is taken only with the
// signature of the pinned policy key, and with no version below the one held. Whoever
// has a certificate that another key signed renews it within the hour. So one CA
// takes the place of another: both are trusted, all renew, the old one is dropped.
// Dropping cuts nothing.
//
// # Revocations
//
// What is revoked ([wire.Revocation]) is a name's certificates from before a moment, or a key,
// of whomever, or one certificate of an authority. After Welcome a portal or relay says how far
// it knows the revocations ([wire.RevocationsHeld]); the server sends the later ones,
// [wire.RevocationsComplete], and from then on each that is new. They are kept on disk, hold for
// ever, end what runs, and count in every handshake. A server whose epoch is below
// that of RevocationsHeld has lost some: both sides say so, nothing is forgotten, and who
// holds more asks for all of them (RevocationsHeld 0).
//
// None is forgotten with time: clocks may be behind, certificates from elsewhere may last long,
// and a key may be certified anew. Of one name the last revocation takes the place of the
// others. At 100,000 ([identity.MaxRevocations]) a server refuses to revoke more, and a portal or
// relay that is told of more holds on to those it has, and says so.
package keeper
