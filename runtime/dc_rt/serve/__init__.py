"""`dc-rt serve`: jobs over HTTP. Imported when it is used: FastAPI and uvicorn come with the extra `serve`."""
