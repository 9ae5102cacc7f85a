// A simple policy server in Go. Usage: server POLICY_FILE. Prints "port N".
package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

var request = []byte("<policy-file-request/>\x00")

func main() {
	policy, err := os.ReadFile(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	reply := append(policy, 0)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("port", listener.Addr().(*net.TCPAddr).Port)
	for {
		connection, err := listener.Accept()
		if err != nil {
			time.Sleep(10 * time.Millisecond) // probably out of files
			continue
		}
		go serve(connection, reply)
	}
}

func serve(connection net.Conn, reply []byte) {
	defer connection.Close()
	connection.SetDeadline(time.Now().Add(3 * time.Second))
	seen := make([]byte, len(request))
	if _, err := io.ReadFull(connection, seen); err == nil && bytes.Equal(seen, request) {
		connection.Write(reply)
	}
}
