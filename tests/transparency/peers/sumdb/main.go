// Check a log folder with golang.org/x/mod/sumdb: the signed checkpoint, the inclusion of entries,
// and the consistency of the tree with all of its shorter ones.
//
//	main FOLDER VKEY STEP
//
// checks every STEP-th entry and size, and prints what was checked.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// tiles reads tiles of height 8 from a folder. C2SP leaves the height out of the path.
type tiles string

func (t tiles) Height() int { return 8 }

func (t tiles) path(tile tlog.Tile) string {
	path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
	return filepath.Join(string(t), strings.Replace(path, "tile/data/", "tile/entries/", 1))
}

func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range wanted {
		data, err := os.ReadFile(t.path(tile))
		if err != nil {
			full := tile
			full.W = 1 << tile.H
			if data, err = os.ReadFile(t.path(full)); err != nil {
				return nil, err
			}
			data = data[:tile.W*tlog.HashSize]
		}
		found = append(found, data)
	}
	return found, nil
}

func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func (t tiles) entry(index, size int64) []byte {
	width := size - index/256*256
	if width > 256 {
		width = 256
	}
	data, err := os.ReadFile(t.path(tlog.Tile{H: 8, L: -1, N: index / 256, W: int(width)}))
	check(err)
	for i := index % 256; i > 0; i-- {
		data = data[2+int(binary.BigEndian.Uint16(data)):]
	}
	return data[2 : 2+int(binary.BigEndian.Uint16(data))]
}

func main() {
	folder, vkey := tiles(os.Args[1]), os.Args[2]
	step, err := strconv.ParseInt(os.Args[3], 10, 64)
	check(err)

	verifier, err := note.NewVerifier(vkey)
	check(err)
	data, err := os.ReadFile(filepath.Join(string(folder), "checkpoint"))
	check(err)
	opened, err := note.Open(data, note.VerifierList(verifier))
	check(err)
	lines := strings.Split(opened.Text, "\n")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err)
	raw, err := base64.StdEncoding.DecodeString(lines[2])
	check(err)
	var root tlog.Hash
	copy(root[:], raw)
	if lines[0] != verifier.Name() {
		log.Fatal("another origin")
	}

	// TileHashReader checks every tile against the root.
	reader := tlog.TileHashReader(tlog.Tree{N: size, Hash: root}, folder)
	records, trees := 0, 0
	for index := int64(0); index < size; index += step {
		proof, err := tlog.ProveRecord(size, index, reader)
		check(err)
		leaf := tlog.RecordHash(folder.entry(index, size))
		check(tlog.CheckRecord(proof, size, root, index, leaf))
		records++
	}
	for old := int64(1); old <= size; old += step {
		hash, err := tlog.TreeHash(old, reader)
		check(err)
		proof, err := tlog.ProveTree(size, old, reader)
		check(err)
		check(tlog.CheckTree(proof, size, root, old, hash))
		trees++
	}
	fmt.Printf("size %d: %d inclusions, %d consistencies\n", size, records, trees)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
