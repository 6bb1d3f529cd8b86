// Package couple names two portals whatever their order: sessions, tickets and what
// is agreed on how they meet belong to both alike.
package couple

// Portals are two portals: A has the smaller name.
type Portals struct{ A, B string }

// Of returns the couple of two portals.
func Of(a, b string) Portals {
	if b < a {
		a, b = b, a
	}
	return Portals{a, b}
}
