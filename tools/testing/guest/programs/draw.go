// SPDX-License-Identifier: GPL-2.0
// Draws once for every line on standard input. Usage: draw-go math|crypto
package main

import (
	"bufio"
	"crypto/rand"
	"fmt"
	mathrand "math/rand"
	"os"
	"time"
)

func main() {
	mathrand.Seed(time.Now().UnixNano())
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		drawn := make([]byte, 16)
		if os.Args[1] == "crypto" {
			if _, err := rand.Read(drawn); err != nil {
				panic(err)
			}
		} else {
			mathrand.Read(drawn)
		}
		fmt.Printf("%x\n", drawn)
	}
}
