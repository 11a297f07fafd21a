// The server of Istio's helloworld sample, without its one million idle turns per request:
// GET /hello answers version and instance, GET /health answers that it lives. HTTP/1.1, keep-alive.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func main() {
	instance, err := os.Hostname()
	if err != nil {
		instance = "unknown"
	}
	hello := fmt.Sprintf("Hello version: %s, instance: %s\n", setting("SERVICE_VERSION", "v1"), setting("HOSTNAME", instance))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, hello) })
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "Helloworld is healthy\n") })
	server := &http.Server{Addr: ":" + setting("PORT", "5000"), Handler: mux, ReadHeaderTimeout: 10 * time.Second}

	// A pod that ends answers what it has accepted.
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	done := make(chan struct{})
	go func() {
		<-ended.Done()
		patience, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(patience)
		close(done)
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		log.Fatal(err)
	}
	<-done
}
