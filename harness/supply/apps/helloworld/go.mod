module meshproof.dev/supply/helloworld

go 1.26.0
